"""Choose the questions: greedily, each with the greatest expected information given the answers so far.

The information of an answer is its mutual information with the user's cluster (@golbandi2011adaptive build a tree of
such questions; here each is computed when it is asked), in bits

    known · (H(Σ_c p_c like_c) − Σ_c p_c H(like_c))

Within one page the answers to the questions above are not known yet: the information is expected over the most likely
combinations of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.data.late_scipy import special
from handsell.onboarding.question_model import QuestionModel

SCENARIOS = 16  # combinations of unknown answers that are kept
LN2 = np.log(2.0)


@dataclass(frozen=True, slots=True)
class Questions:
    place: np.ndarray  # (m,) int64 places in the model, m ≤ n
    information: np.ndarray  # (m,) float64 bits, given the questions above


def choose_questions(
    model: QuestionModel, liked: np.ndarray, disliked: np.ndarray, allowed: np.ndarray, n: int
) -> Questions:
    """Return at most n questions among allowed (Q,) bool, given the places of liked and disliked ones."""
    posterior, weight = model.compute_posterior(liked, disliked)[None], np.ones(1)  # (M, C), (M,)
    place: list[int] = []
    information: list[float] = []
    left = allowed.copy()
    noise = _entropy(model.like)  # (C, Q)
    while len(place) < n and left.any():
        rate = posterior @ model.like  # (M, Q)
        bits = model.known * (weight @ (_entropy(rate) - posterior @ noise))
        best = int(np.where(left, bits, -np.inf).argmax())
        place.append(best)
        information.append(max(float(bits[best]), 0.0))
        left[best] = False
        posterior, weight = _split(model.like[:, best], float(model.known[best]), posterior, weight)
    return Questions(np.array(place, np.int64), np.array(information))


def _split(like: np.ndarray, known: float, posterior: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the posteriors (M', C) and weights (M',) after the possible answers to one question."""
    yes, no = posterior * like, posterior * (1 - like)
    both = np.concatenate([yes, no, posterior])
    mass = np.concatenate([weight * known * yes.sum(axis=1), weight * known * no.sum(axis=1), weight * (1 - known)])
    kept = np.argsort(-mass, kind="stable")[:SCENARIOS]
    kept = kept[mass[kept] > 0]
    some = both[kept]
    return some / some.sum(axis=1, keepdims=True), mass[kept] / mass[kept].sum()


def _entropy(p: np.ndarray) -> np.ndarray:
    """Return the entropy in bits of a yes with probability p."""
    return (special.entr(p) + special.entr(1 - p)) / LN2
