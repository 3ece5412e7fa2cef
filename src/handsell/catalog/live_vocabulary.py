"""A vocabulary with ids that came with live catalog changes, behind those of the bundle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import NONE


@dataclass(frozen=True, slots=True)
class LiveVocabulary(Vocabulary):
    """N ids of `base`, then added ones. Versions share `numbers`, which only grows: each shows its first `size` ids."""

    base: Vocabulary
    size: int
    numbers: dict[str, int] = field(default_factory=dict)  # of added ids, in the order of their numbers
    added: list[str] = field(default_factory=list)

    @classmethod
    def on(cls, base: Vocabulary) -> Self:
        """Return the vocabulary without added ids."""
        return cls(base.texts, base.hashes, base.order, base, len(base))

    def __len__(self) -> int:
        return self.size

    def number(self, ids: Sequence[str]) -> np.ndarray:
        found = self.base.number(ids)
        if self.size > len(self.base):
            for row in np.flatnonzero(found == NONE).tolist():
                number = self.numbers.get(ids[row], NONE)
                found[row] = number if number < self.size else NONE
        return found

    def ids(self, numbers: np.ndarray) -> list[str]:
        numbers, first = np.asarray(numbers, np.int64), len(self.base)
        if not (numbers >= first).any():
            return self.base.ids(numbers)
        own = numbers.tolist()
        old = self.base.ids(np.where(numbers < first, numbers, 0)) if first else [""] * len(own)
        return [self.added[n - first] if n >= first else text for n, text in zip(own, old, strict=True)]

    def add(self, ids: Iterable[str]) -> Self:
        """Return a version with the unknown ones of `ids` added, in their order; only the newest version may grow."""
        fresh = list(dict.fromkeys(ids))
        fresh = [i for i, n in zip(fresh, self.number(fresh), strict=True) if n == NONE]
        for place, one in enumerate(fresh, start=self.size):
            self.added.append(one)
            self.numbers[one] = place
        return replace(self, size=self.size + len(fresh)) if fresh else self

    def extend(self, ids: Iterable[str]) -> Vocabulary:
        return self.base.extend([*self.added[: self.size - len(self.base)], *ids])

    def starts_with(self, other: Vocabulary) -> bool:
        return self.extend(()).starts_with(other)

    def save(self, path) -> None:
        self.extend(()).save(path)
