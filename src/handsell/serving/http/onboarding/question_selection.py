"""Choose the items to ask a new user about, from a bundle's model of answers and the user's events."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from handsell.core.batches import NONE, Ragged, Requests
from handsell.onboarding.question_choice import choose_questions
from handsell.onboarding.question_model import QuestionModel
from handsell.serving.graph.popularity_fallback import PopularItems

MISSING = "onboarding"


@dataclass(frozen=True, slots=True)
class AskedItems:
    """Items to ask about, most informative first."""

    item: np.ndarray  # (m,) int32
    information: np.ndarray  # (m,) float64 bits
    answers: int  # items of the model that the user has answered
    degraded: tuple[str, ...]


def select_questions(model: QuestionModel | None, popular: PopularItems, requests: Requests, n: int) -> AskedItems:
    """Return at most n eligible items that one request's user (B = 1) has not answered yet.

    Events of positive weight are likes, those of negative weight dislikes; the latest of an item counts. Items beyond
    the model, or without a model, are the most popular ones.
    """
    history = requests.history
    answered = dict(zip(history.item[0].tolist(), history.weight[0].tolist(), strict=True))  # the latest is last
    known = [item for item in answered if item != NONE] + requests.seen.item.row(0).tolist()
    requests = replace(requests, exclude=Ragged.from_rows([np.union1d(requests.exclude.row(0), known)]))
    item, information, answers = np.zeros(0, np.int32), np.zeros(0), 0
    if model is not None:
        place, weight = model.find(np.array(list(answered))), np.array(list(answered.values()))
        liked, disliked = (place[(place != NONE) & (sign * weight > 0)] for sign in (1, -1))
        allowed = popular.eligibility.allows(requests, model.item[None])[0]
        chosen = choose_questions(model, liked, disliked, allowed, n)
        item, information = model.item[chosen.place], chosen.information
        answers = len(liked) + len(disliked)
    if len(item) < n:
        others = replace(requests, exclude=Ragged.from_rows([np.union1d(requests.exclude.row(0), item)]))
        more = popular.first_allowed(popular.popular, others, n - len(item))[0][0]
        item = np.concatenate([item, more[more != NONE]])
        information = np.concatenate([information, np.zeros(len(item) - len(information))])
    return AskedItems(item, information, answers, () if model is not None else (MISSING,))
