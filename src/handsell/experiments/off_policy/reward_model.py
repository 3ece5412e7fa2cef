"""Predicted rewards for the doubly robust estimator: a logistic regression, cross-fitted by user.

The slates of a user are predicted by a model that was fitted on other users. The estimate is unbiased whatever the
model says, as long as the propensities are right; a good model makes it more precise.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from handsell.core.hashing import uniform
from handsell.experiments.off_policy.estimators import Predictions, SlateRewards

FOLDS = 2
STRENGTH = 1.0  # inverse of the L2 penalty on standardized features


def predict_rewards(logged: SlateRewards, of_logged: np.ndarray, of_candidate: np.ndarray) -> Predictions:
    """Predict the rewards of logged items, features (N, n, F), and of the candidate's R draws, (R, N, n, F).

    Rewards lie in 0..1. The position becomes a feature, too.
    """
    shape, shown = logged.reward.shape, logged.shown
    fold = _draw_folds(logged.user)
    predicted, expected = np.zeros(shape), np.zeros(shape)
    for f in range(FOLDS):
        mine = fold == f
        model = RewardModel(
            of_logged[~mine][shown[~mine]], _positions(~mine, shape)[shown[~mine]], logged.reward[~mine][shown[~mine]]
        )
        predicted[mine] = model.predict(of_logged[mine], _positions(mine, shape))
        for draw in of_candidate:
            expected[mine] += model.predict(draw[mine], _positions(mine, shape)) / len(of_candidate)
    return Predictions(predicted, expected)


class RewardModel:
    """The expected reward of features (…, F) at positions (…)."""

    def __init__(self, features: np.ndarray, position: np.ndarray, reward: np.ndarray):
        self._mean = float(reward.mean()) if len(reward) else 0.0
        self._width = int(position.max(initial=0)) + 1
        self._model: LogisticRegression | None = None
        if reward.sum() > 0 and reward.min() < reward.max():
            self._scale = StandardScaler().fit(features)
            both = np.concatenate([reward, 1 - reward])  # a reward of 0.3 is three tenths of a success
            twice = np.tile(self._columns(features, position), (2, 1))
            label = np.repeat([1, 0], len(reward))
            kept = both > 0
            self._model = LogisticRegression(C=STRENGTH, max_iter=500)
            self._model.fit(twice[kept], label[kept], sample_weight=both[kept])

    def predict(self, features: np.ndarray, position: np.ndarray) -> np.ndarray:
        if self._model is None:
            return np.full(position.shape, self._mean)
        columns = self._columns(features.reshape(-1, features.shape[-1]), position.ravel())
        return self._model.predict_proba(columns)[:, 1].reshape(position.shape)

    def _columns(self, features: np.ndarray, position: np.ndarray) -> np.ndarray:
        at = np.minimum(position, self._width - 1)[:, None] == np.arange(self._width)
        return np.hstack([self._scale.transform(features), at])


def _draw_folds(user: np.ndarray) -> np.ndarray:
    """Return (N,) the fold of each slate; unknown users (-1) are spread over all."""
    key = np.where(user < 0, -1 - np.arange(len(user)), user)
    return (uniform(17, key) * FOLDS).astype(np.int64)


def _positions(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.arange(shape[1]), (int(rows.sum()), shape[1]))
