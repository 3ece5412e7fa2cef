"""Training data of SASRec: windows of the users' event sequences in batches of similar length, and validation data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from handsell.data.interactions import Interactions
from handsell.retrieval.models.sasrec import SASRecConfig

HELD_OUT = 0.1  # largest share of a shard's users whose last like is held out
MIN_VALIDATION_USERS = 50  # fewer held-out users would not give a reliable NDCG
FULL_SOFTMAX = 30_000  # largest number of items in the softmax; above, negatives are drawn
NONE = -1


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """B windows of at most L events, padded at the end. Items are given as positions in `items`."""

    items: np.ndarray  # (U,) int64, the items of the softmax
    history: np.ndarray  # (B, L) int64 positions
    liked: np.ndarray  # (B, L) bool
    place: np.ndarray  # (N,) int64 places of the flattened (B, L) that a like follows
    target: np.ndarray  # (N,) int64 position of the liked item, -1 if it is not in `items`
    log_chance: np.ndarray | None  # (U,) float32 log probability of being in `items`; None where all items are


class SequenceRows:
    """Batches from the event sequences of one shard of users, without the held-out likes."""

    def __init__(self, interactions: Interactions, config: SASRecConfig):
        self.config = config
        events = interactions.where(interactions.weight != 0)
        last, user = hold_out(events, config)
        self.held_out_users, self.held_out_items = user, events.item[last]
        until = np.full(events.n_users, len(events))
        until[user] = last
        self.events = events = events.where(np.arange(len(events)) < until[events.user])
        self.trained = np.bincount(events.item, minlength=events.n_items) > 0  # (I,) bool
        self.share = np.bincount(events.item, minlength=events.n_items) / max(len(events), 1)
        self.offsets = events.user_offsets
        likes = np.concatenate([[0], np.cumsum(events.weight > 0)])
        first, last = self.offsets[:-1], self.offsets[1:]
        learned = likes[last] - likes[np.minimum(first + 1, last)]  # likes with an event before them
        self.sequences = first[learned > 0], last[learned > 0]
        self.per_epoch = int(learned.sum())

    @property
    def steps(self) -> int:
        """Batches per epoch; 0 where no like follows another event."""
        return -(-self.per_epoch // self.config.batch_size)

    def iterate_batches(self, steps: int, trained: np.ndarray, rng: np.random.Generator) -> Iterator[SequenceBatch]:
        """Yield the batches of one epoch; `trained` (I,) bool are the items with events in any shard."""
        first, last = self.draw_windows(rng)
        length = last - first
        order = np.argsort(length * rng.uniform(0.95, 1.05, len(length)) + rng.random(len(length)), kind="stable")
        reached = np.cumsum(length[order])
        parts = np.split(order, np.searchsorted(reached, np.arange(1, steps) * (reached[-1] / steps)))
        items = np.flatnonzero(trained)
        for n in rng.permutation(steps):
            if len(parts[n]):
                yield self._build_batch(first[parts[n]], last[parts[n]], items, rng)

    def draw_windows(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw ranges of events to read: whole sequences, or pieces of T events with a random offset.

        The event after each position is its target, so that no range contains the last event of a sequence.
        """
        most = self.config.length
        begin, end = self.sequences[0], self.sequences[1] - 1
        spare = end - begin
        shift = np.where(spare > most, rng.integers(0, most, len(spare)), 0)
        pieces = -(-(spare + shift) // most)
        sequence = np.repeat(np.arange(len(spare)), pieces)
        nth = np.arange(len(sequence)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        last = begin[sequence] - shift[sequence] + (nth + 1) * most
        return np.maximum(last - most, begin[sequence]), np.minimum(last, end[sequence])

    def _build_batch(
        self, first: np.ndarray, last: np.ndarray, items: np.ndarray, rng: np.random.Generator
    ) -> SequenceBatch:
        at, inside = _pad_ranges(first, last)
        follows = np.where(inside, at + 1, 0)
        place = np.flatnonzero(inside & (self.events.weight[follows] > 0))
        target = self.events.item[follows.ravel()[place]]
        if len(items) <= FULL_SOFTMAX:
            return self._assemble_batch(at, inside, place, target, items, None)
        count = min(self.config.negatives, len(items))
        drawn = rng.choice(items, count, replace=False)
        items = np.unique(np.concatenate([target, self.events.item[at[inside]], drawn]))
        missed = (1 - count / len(self.share)) * np.exp(-inside.sum() * self.share[items])
        return self._assemble_batch(at, inside, place, target, items, np.log(1 - missed).astype(np.float32))

    def _assemble_batch(
        self,
        at: np.ndarray,
        inside: np.ndarray,
        place: np.ndarray,
        target: np.ndarray,
        items: np.ndarray,
        log_chance: np.ndarray | None,
    ) -> SequenceBatch:
        position = np.full(self.events.n_items, NONE)
        position[items] = np.arange(len(items))
        history = np.where(inside, position[self.events.item[at]], 0)
        liked = self.events.weight[at] > 0
        return SequenceBatch(items.astype(np.int64), history, liked, place, position[target], log_chance)

    def iterate_validation(self, trained: np.ndarray, rows: int = 256) -> Iterator[SequenceBatch]:
        """Yield the held-out users, with their held-out like as the only target, among all trained items."""
        last = self.offsets[self.held_out_users + 1]
        first = np.maximum(self.offsets[self.held_out_users], last - self.config.length)
        order = np.argsort(last - first, kind="stable")
        items = np.flatnonzero(trained)
        for part in (order[start : start + rows] for start in range(0, len(order), rows)):
            at, inside = _pad_ranges(first[part], last[part])
            ends = np.arange(len(part)) * at.shape[1] + inside.sum(axis=1) - 1
            yield self._assemble_batch(at, inside, ends, self.held_out_items[part], items, None)


def _pad_ranges(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the event numbers (B, L) of ranges, 0 as padding, and a mask (B, L) that is False at padding."""
    at = first[:, None] + np.arange((last - first).max())
    inside = at < last[:, None]
    return np.where(inside, at, 0), inside


def hold_out(events: Interactions, config: SASRecConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return last likes (V,), as event numbers, and their users (V,): a random part of users with at least 3 likes."""
    liked = np.flatnonzero(events.weight > 0)
    count = np.bincount(events.user[liked], minlength=events.n_users)
    able = np.flatnonzero(count >= 3)
    many = min(config.validation_users, int(HELD_OUT * len(able)))
    if many < MIN_VALIDATION_USERS:
        able = able[:0]
    user = np.sort(np.random.default_rng(config.seed).permutation(able)[:many])
    return liked[np.cumsum(count)[user] - 1], user
