"""What SASRec is trained on, windows over the users' lines in batches of like length; and the likes that judge it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from handsell.data.interactions import Interactions
from handsell.retrieval.models.sasrec import SASRecConfig

HELD_OUT = 0.1  # share of a shard's users, at most, whose last like is kept back
MIN_VALIDATION_USERS = 50  # fewer users held out than this would say nothing
FULL_SOFTMAX = 30_000  # items; above, rivals are drawn
NONE = -1


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """B windows of at most L events, padded at the end; items are positions in `items`, the U rivals."""

    items: np.ndarray  # (U,) int64
    history: np.ndarray  # (B, L) int64 positions
    liked: np.ndarray  # (B, L) bool
    asked: np.ndarray  # (N,) int64 places of the flattened (B, L) after which something was liked
    target: np.ndarray  # (N,) int64 position of what was liked, -1 if it is no rival
    log_chance: np.ndarray | None  # (U,) float32 log of the chance to be among the rivals; None where all are


class SequenceRows:
    """One shard of users: their lines without the likes held out, and how these are cut into batches."""

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
        learned = likes[last] - likes[np.minimum(first + 1, last)]  # likes that something came before
        self.lines = first[learned > 0], last[learned > 0]
        self.per_epoch = int(learned.sum())

    @property
    def steps(self) -> int:
        """Batches in an epoch; 0 when nobody liked anything after another event."""
        return -(-self.per_epoch // self.config.batch_size)

    def batches(self, steps: int, trained: np.ndarray, rng: np.random.Generator) -> Iterator[SequenceBatch]:
        """One epoch; `trained` (I,) bool are the items of all shards."""
        first, last = self.draw_windows(rng)
        length = last - first
        order = np.argsort(length * rng.uniform(0.95, 1.05, len(length)) + rng.random(len(length)), kind="stable")
        reached = np.cumsum(length[order])
        parts = np.split(order, np.searchsorted(reached, np.arange(1, steps) * (reached[-1] / steps)))
        rivals = np.flatnonzero(trained)
        for n in rng.permutation(steps):
            if len(parts[n]):
                yield self._batch(first[parts[n]], last[parts[n]], rivals, rng)

    def draw_windows(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Ranges of events that are looked at: whole lines, or pieces of T cut at random; the next event is a target.

        No piece holds a line's last event, which nothing follows.
        """
        most = self.config.length
        begin, end = self.lines[0], self.lines[1] - 1
        spare = end - begin
        shift = np.where(spare > most, rng.integers(0, most, len(spare)), 0)
        pieces = -(-(spare + shift) // most)
        line = np.repeat(np.arange(len(spare)), pieces)
        nth = np.arange(len(line)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        last = begin[line] - shift[line] + (nth + 1) * most
        return np.maximum(last - most, begin[line]), np.minimum(last, end[line])

    def _batch(
        self, first: np.ndarray, last: np.ndarray, rivals: np.ndarray, rng: np.random.Generator
    ) -> SequenceBatch:
        at, inside = _pad_ranges(first, last)
        follows = np.where(inside, at + 1, 0)
        asked = np.flatnonzero(inside & (self.events.weight[follows] > 0))
        target = self.events.item[follows.ravel()[asked]]
        if len(rivals) <= FULL_SOFTMAX:
            return self._assemble_batch(at, inside, asked, target, rivals, None)
        count = min(self.config.negatives, len(rivals))
        drawn = rng.choice(rivals, count, replace=False)
        rivals = np.unique(np.concatenate([target, self.events.item[at[inside]], drawn]))
        missed = (1 - count / len(self.share)) * np.exp(-inside.sum() * self.share[rivals])
        return self._assemble_batch(at, inside, asked, target, rivals, np.log(1 - missed).astype(np.float32))

    def _assemble_batch(
        self,
        at: np.ndarray,
        inside: np.ndarray,
        asked: np.ndarray,
        target: np.ndarray,
        rivals: np.ndarray,
        log_chance: np.ndarray | None,
    ) -> SequenceBatch:
        place = np.full(self.events.n_items, NONE)
        place[rivals] = np.arange(len(rivals))
        history = np.where(inside, place[self.events.item[at]], 0)
        liked = self.events.weight[at] > 0
        return SequenceBatch(rivals.astype(np.int64), history, liked, asked, place[target], log_chance)

    def validation_batches(self, trained: np.ndarray, rows: int = 256) -> Iterator[SequenceBatch]:
        """The users held out, asked at their last place alone for what they liked next, among all trained items."""
        last = self.offsets[self.held_out_users + 1]
        first = np.maximum(self.offsets[self.held_out_users], last - self.config.length)
        order = np.argsort(last - first, kind="stable")
        rivals = np.flatnonzero(trained)
        for part in (order[start : start + rows] for start in range(0, len(order), rows)):
            at, inside = _pad_ranges(first[part], last[part])
            ends = np.arange(len(part)) * at.shape[1] + inside.sum(axis=1) - 1
            yield self._assemble_batch(at, inside, ends, self.held_out_items[part], rivals, None)


def _pad_ranges(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Event numbers (B, L) of ranges, and where they are inside their range; 0 where not."""
    at = first[:, None] + np.arange((last - first).max())
    inside = at < last[:, None]
    return np.where(inside, at, 0), inside


def hold_out(events: Interactions, config: SASRecConfig) -> tuple[np.ndarray, np.ndarray]:
    """Last likes (V,), as event numbers, and their users (V,): a random part of those with three likes or more."""
    liked = np.flatnonzero(events.weight > 0)
    count = np.bincount(events.user[liked], minlength=events.n_users)
    able = np.flatnonzero(count >= 3)
    many = min(config.validation_users, int(HELD_OUT * len(able)))
    if many < MIN_VALIDATION_USERS:
        able = able[:0]
    user = np.sort(np.random.default_rng(config.seed).permutation(able)[:many])
    return liked[np.cumsum(count)[user] - 1], user
