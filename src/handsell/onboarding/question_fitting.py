"""Fit the model of answers: cluster users by their likes, and compare each cluster's likes with everyone's.

Users who did not like an item mostly never met it, so that the share of a cluster that liked it says little by itself.
Its ratio to the share of all users (the lift) does not depend on how often the item was shown to everybody. The
probability that a user of the cluster likes the item when asked has the odds BASE_ODDS · lift.
"""

from __future__ import annotations

import numpy as np

from handsell.data.interactions import Interactions
from handsell.data.late_scipy import sparse
from handsell.onboarding.config import OnboardingConfig
from handsell.onboarding.question_model import QuestionModel

DIRECTIONS = 32  # singular vectors by which users are clustered
LEAST_LIKES = 5  # of a user whose taste is known well enough
MOST_USERS = 100_000  # a sample that is large enough
SMOOTHING = 20.0  # users of average taste added to each cluster
BASE_ODDS = 0.4  # of liking an item that the cluster likes as much as everybody
KNOWN_EXPONENT = 0.25  # of an item's likes relative to those of the most liked one
MARGIN = 0.02  # answers may be mistakes: no probability is nearer to 0 or 1


def fit_questions(interactions: Interactions, config: OnboardingConfig, seed: int = 0) -> QuestionModel:
    """Fit on all users with some likes; a catalog with too few of them gets a model of one cluster."""
    likes = interactions.positives.matrix()
    likes.sum_duplicates()
    likes.data[:] = 1.0
    count = np.asarray(likes.sum(axis=0)).ravel()
    item = np.argsort(-count, kind="stable")[: config.items].astype(np.int32)
    item = item[count[item] > 0]
    known_users = np.flatnonzero(np.diff(likes.indptr) >= LEAST_LIKES)
    likes = likes[np.random.default_rng(seed).permutation(known_users)[:MOST_USERS]]
    cluster = cluster_users(likes, config.clusters, seed)
    clusters = int(cluster.max(initial=0)) + 1
    member = sparse.csr_matrix((np.ones(len(cluster)), (cluster, np.arange(len(cluster)))), (clusters, len(cluster)))
    size = np.maximum(np.asarray(member.sum(axis=1)).ravel(), 1e-9)
    liked = np.asarray((member @ likes[:, item]).todense())
    average = np.asarray(likes[:, item].sum(axis=0)).ravel() / max(likes.shape[0], 1)
    average = np.maximum(average, 1e-12)
    rate = (liked + SMOOTHING * average) / (size + SMOOTHING)[:, None]
    odds = BASE_ODDS * rate / average
    known = (count[item] / max(count.max(initial=0), 1.0)) ** KNOWN_EXPONENT
    return QuestionModel(
        item,
        np.clip(odds / (1 + odds), MARGIN, 1 - MARGIN).astype(np.float32),
        known.astype(np.float32),
        size / size.sum(),
    )


def cluster_users(likes: sparse.csr_matrix, clusters: int, seed: int) -> np.ndarray:
    """Return the cluster of each user (U,) of a matrix (U, I) of likes: k-means on leading singular vectors."""
    users, items = likes.shape
    clusters, directions = min(clusters, users // 10), min(DIRECTIONS, users - 1, items - 1)
    if clusters < 2 or directions < 2:
        return np.zeros(users, np.int64)
    from sklearn.cluster import KMeans  # slow to import; only fitting needs it
    from sklearn.utils.extmath import randomized_svd

    degree = np.maximum(np.asarray(likes.sum(axis=0)).ravel(), 1)
    scaled = sparse.csr_matrix(likes.multiply(1 / np.sqrt(degree)))
    left, singular, _ = randomized_svd(scaled, directions, random_state=seed)
    place = left * singular
    place /= np.maximum(np.linalg.norm(place, axis=1, keepdims=True), 1e-12)
    return KMeans(clusters, n_init=4, random_state=seed).fit_predict(place).astype(np.int64)
