"""The model of answers: which groups of users like which items, and how likely a new user can judge an item.

A new user belongs to one of C clusters. Answers are independent given the cluster: an item that the user knows is liked
with the probability `like[c, q]`. An answer "unknown" says nothing about the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handsell.core.batches import NONE
from handsell.core.errors import BundleError

NAME = "questions.npz"


@dataclass(frozen=True)
class QuestionModel:
    """C clusters of users and Q items to ask about, most liked first."""

    item: np.ndarray  # (Q,) int32
    like: np.ndarray  # (C, Q) float32, probability that a user of the cluster who knows the item likes it
    known: np.ndarray  # (Q,) float32, probability that a user can judge the item
    share: np.ndarray  # (C,) float64, share of users

    def __len__(self) -> int:
        return len(self.item)

    def find(self, items: np.ndarray) -> np.ndarray:
        """Return the places of items (N,) among the questions, -1 for others."""
        if not len(self.item):
            return np.full(len(items), NONE)
        order = np.argsort(self.item, kind="stable")
        at = np.minimum(np.searchsorted(self.item, items, sorter=order), len(order) - 1)
        place = order[at]
        return np.where(self.item[place] == items, place, NONE)

    def compute_posterior(self, liked: np.ndarray, disliked: np.ndarray) -> np.ndarray:
        """Return (C,) the probability of each cluster after answers, places of questions."""
        log = (
            np.log(self.share) + np.log(self.like[:, liked]).sum(axis=1) + np.log1p(-self.like[:, disliked]).sum(axis=1)
        )
        weight = np.exp(log - log.max())
        return weight / weight.sum()

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / NAME, item=self.item, like=self.like, known=self.known, share=self.share)

    @classmethod
    def load(cls, folder: Path) -> QuestionModel | None:
        """Return the model of a bundle, None for a bundle without one; raise BundleError if it is corrupt."""
        path = folder / NAME
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                model = cls(*(arrays[name] for name in ("item", "like", "known", "share")))
        except (OSError, ValueError, KeyError) as error:
            raise BundleError(f"{path} cannot be read ({error}): train the bundle again") from None
        questions, clusters = len(model.item), len(model.share)
        if model.like.shape != (clusters, questions) or len(model.known) != questions:
            raise BundleError(f"{path}: expected arrays of {questions} items and {clusters} clusters: train again")
        return model
