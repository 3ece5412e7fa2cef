"""Kept answers in a bounded amount of memory: the least recently used ones are dropped first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer, and when it was computed and ends (µs of the service clock)."""

    value: Any
    made_us: int
    until_us: int
    size: int  # bytes


class KeptAnswers:
    """By key; `most` bytes in all."""

    def __init__(self, most: int):
        self._most, self.size = most, 0
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()  # the most recently used last

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: bytes, now_us: int) -> Kept | None:
        """Return what is kept under a key, unless it has ended."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if not kept.made_us <= now_us < kept.until_us:  # a clock may be set back
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def put(self, key: bytes, kept: Kept) -> None:
        """Keep an answer, and drop what has ended or has no place any more."""
        self._drop(key)
        self._kept[key] = kept
        self.size += kept.size
        self._make_room(kept.made_us)

    def grow(self, key: bytes, more: int) -> None:
        """Count more bytes for an answer to which something has been added."""
        if (kept := self._kept.get(key)) is not None:
            self._kept[key] = replace(kept, size=kept.size + more)
            self.size += more
            self._make_room(kept.made_us)

    def _make_room(self, now_us: int) -> None:
        while self._kept:
            oldest = next(iter(self._kept))
            if self.size <= self._most and self._kept[oldest].until_us > now_us:
                return
            self._drop(oldest)

    def clear(self) -> None:
        self._kept.clear()
        self.size = 0

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        self.size -= 0 if kept is None else kept.size
