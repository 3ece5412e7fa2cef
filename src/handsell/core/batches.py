"""Struct-of-arrays batches passed through the funnel: Requests → Candidates → Slates.

Sizes: B requests, T history length, A affinities, K candidates, S sources, n slate length.
Item, creator and tag values are catalog numbers (int32); -1 means "none" and pads.
Times are int64 microseconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from handsell.core.offsets import expand_segments, offsets_from_counts

NONE = -1


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of different length: row b is values[offsets[b]:offsets[b + 1]]."""

    values: np.ndarray  # (N,)
    offsets: np.ndarray  # (B + 1,) int64

    @classmethod
    def from_rows(cls, rows: Sequence[np.ndarray | Sequence[int]], dtype: np.dtype | type = np.int32) -> Ragged:
        if not any(map(len, rows)):
            return cls.empty(len(rows), dtype)
        offsets = offsets_from_counts(np.fromiter((len(row) for row in rows), np.int64, len(rows)))
        return cls(np.concatenate([np.asarray(row, dtype) for row in rows]), offsets)

    @classmethod
    def empty(cls, rows: int, dtype: np.dtype | type = np.int32) -> Ragged:
        return cls(np.zeros(0, dtype), np.zeros(rows + 1, np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, b: int) -> np.ndarray:
        return self.values[self.offsets[b] : self.offsets[b + 1]]

    @property
    def lengths(self) -> np.ndarray:
        return self.offsets[1:] - self.offsets[:-1]  # np.diff takes four times as long for a few rows

    @property
    def row_of_value(self) -> np.ndarray:
        """(N,) row number of each value, as in `x[r.row_of_value, r.values] = …`."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def where(self, mask: np.ndarray) -> Ragged:
        """Keep the values where mask (N,) is true; rows may become empty, none is removed."""
        if mask.all():
            return self
        counts = np.bincount(self.row_of_value[mask], minlength=len(self))
        return Ragged(self.values[mask], offsets_from_counts(counts))

    def positions(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices into `values` of all values of `rows` (R,) in sequence (M,), and which of `rows` each is in (M,)."""
        return expand_segments(self.offsets[rows], self.offsets[rows + 1])

    def take(self, rows: np.ndarray | slice) -> Ragged:
        index = np.arange(len(self))[rows]
        return Ragged(self.values[self.positions(index)[0]], offsets_from_counts(self.lengths[index]))


def to_object_array(rows: Sequence[Sequence[Any]], width: int) -> np.ndarray:
    """Build a (B, width) object array; a cell may itself be a sequence."""
    out = np.empty((len(rows), width), object)
    for b, row in enumerate(rows):
        for a, cell in enumerate(row):
            out[b, a] = cell
    return out


class RowBatch:
    """Base of batches whose fields are arrays, Ragged or batches of B rows each: selects rows."""

    __slots__ = ()

    def take(self, rows: np.ndarray | slice):
        changed: dict[str, Any] = {}
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray):
                changed[f.name] = value[rows]
            elif isinstance(value, Ragged | RowBatch):
                changed[f.name] = value.take(rows)
        return replace(self, **changed)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class History(RowBatch):
    """The T latest interactions before the request, oldest first, left padded with -1."""

    item: np.ndarray  # (B, T) int32
    type: np.ndarray  # (B, T) int8, index into Config.events.names
    time: np.ndarray  # (B, T) int64 µs, 0 where padded
    weight: np.ndarray  # (B, T) float32, the event's weight (negative for a skip), 0 where padded

    @classmethod
    def empty(cls, rows: int, length: int) -> History:
        return cls(
            np.full((rows, length), NONE, np.int32),
            np.full((rows, length), NONE, np.int8),
            np.zeros((rows, length), np.int64),
            np.zeros((rows, length), np.float32),
        )


@dataclass(frozen=True, slots=True)
class Profile(RowBatch):
    """The user's row of the feature store as of the request, without the history."""

    features: np.ndarray  # (B, Fu) float32, ordered as handsell.features.user.list_user_features; NaN = unknown
    creator: np.ndarray  # (B, A) int32, strongest first, -1 padded
    creator_weight: np.ndarray  # (B, A) float32
    tag: np.ndarray  # (B, A) int32
    tag_weight: np.ndarray  # (B, A) float32


@dataclass(frozen=True, slots=True)
class Seen(RowBatch):
    """Items that the user has interacted with, for the repeat policy; at most `FeaturesConfig.seen_cap`."""

    item: Ragged  # (B, *) int32
    time: Ragged  # (B, *) int64 µs of the latest interaction, parallel to `item`


@dataclass(frozen=True, slots=True)
class UserExclusions(RowBatch):
    """Exclusions by user that do not depend on the catalog: shown items and blocks. See handsell.events.exclusions."""

    shown: Ragged  # (B, *) int32 items shown within `shown_days` on one of the surface's `seen_on`
    capped: Ragged  # (B, *) int32 items that have reached the surface's item cap
    creator: Ragged  # (B, *) int32 creators that the user blocks or the caller excludes
    tag: Ragged  # (B, *) int32 tags, likewise
    unreadable: np.ndarray  # (B,) bool, the event log could not be read: no item may be shown
    ignored: Ragged | None = None  # (B, *) int32 items shown lately without an action since; None: not read
    ignored_times: Ragged | None = None  # (B, *) int32 how often, parallel to `ignored`

    @classmethod
    def empty(cls, rows: int) -> UserExclusions:
        none = Ragged.empty(rows)
        return cls(none, none, none, none, np.zeros(rows, bool))


@dataclass(frozen=True, slots=True)
class Requests(RowBatch):
    """B requests for a slate. `time` is the only clock: no data at or after it is used."""

    user: np.ndarray  # (B,) int32, -1 for a user who is not in the catalog
    time: np.ndarray  # (B,) int64 µs, as-of time
    surface: np.ndarray  # (B,) int8, index into Config.surface_names
    history: History
    profile: Profile
    seen: Seen
    exclude: Ragged  # (B, *) int32, items that the caller excludes
    filters: tuple[str, ...] = ()  # distinct filter expressions of the batch: see handsell.eligibility.filters
    filter: np.ndarray | None = None  # (B,) int16 index into `filters`, -1 for none; None: no request has one
    seed: np.ndarray | None = None  # (B,) uint64 for random draws; None: derived from user, time and surface
    unit: np.ndarray | None = None  # (B,) uint64 hash of the user id, for the own arms of a rules file; 0: no user
    count: np.ndarray | None = None  # (B,) int16, positions of the slate that are returned to the caller; None: all
    exclusions: UserExclusions | None = None
    attributes: np.ndarray | None = None  # (B, A) object, ordered as FeaturesConfig.filter_attributes; None: unknown
    arms: np.ndarray | None = None  # (B,) object, each a tuple of "experiment=arm"; None: no request is in one
    overlay: str = ""  # changed settings of all requests of the batch: see handsell.config.overlay

    def __len__(self) -> int:
        return len(self.time)

    def with_filters(self, expressions: Sequence[str | None], **others: Any) -> Requests:
        """Return the requests with these filter expressions (B), None for no filter, and with other fields."""
        distinct = tuple(dict.fromkeys(text for text in expressions if text is not None))
        code = {text: number for number, text in enumerate(distinct)} | {None: NONE}
        filter = np.array([code[text] for text in expressions], np.int16)
        return replace(self, filters=distinct, filter=filter, **others)


@dataclass(frozen=True, slots=True)
class Candidates(RowBatch):
    """The union of all retrievers' results, best fused score first, padded with item -1."""

    item: np.ndarray  # (B, K) int32
    fused: np.ndarray  # (B, K) float32, reciprocal-rank fusion; decides the order without a ranker
    source_score: np.ndarray  # (B, K, S) float32, NaN where the source did not return the item
    source_rank: np.ndarray  # (B, K, S) float32, 0 = the source's first item, NaN likewise
    score: np.ndarray  # (B, K) float32, the ranker's; equals `fused` before ranking
    sources: tuple[str, ...]  # names of the S sources
    degraded: tuple[str, ...] = ()  # sources and stages that failed and were skipped
    carried: int = 0  # last columns that only exploration may show: new items, which ranking would have cut

    def __len__(self) -> int:
        return len(self.item)

    def take_columns(self, k: int) -> Candidates:
        """The first k candidates of each row."""
        return replace(
            self,
            item=self.item[:, :k],
            fused=self.fused[:, :k],
            source_score=self.source_score[:, :k],
            source_rank=self.source_rank[:, :k],
            score=self.score[:, :k],
        )

    def append(self, other: Candidates) -> Candidates:
        """Append the columns of other candidates of the same requests and sources."""
        names = ("item", "fused", "source_score", "source_rank", "score")
        joined: dict[str, Any] = {n: np.concatenate([getattr(self, n), getattr(other, n)], axis=1) for n in names}
        return replace(self, **joined)

    def reorder(self, order: np.ndarray) -> Candidates:
        """Select columns per row by order (B, k) int."""
        return replace(
            self,
            item=_pick_columns(self.item, order),
            fused=_pick_columns(self.fused, order),
            source_score=_pick_columns(self.source_score, order),
            source_rank=_pick_columns(self.source_rank, order),
            score=_pick_columns(self.score, order),
        )


def _pick_columns(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return values (B, K, …) at the columns of each row, order (B, k) int."""
    if len(order) == 1:
        return values.take(order[0], axis=1)  # several times as fast as by row and column
    return values[np.arange(len(order))[:, None], order]


@dataclass(frozen=True, slots=True)
class RulesStamp:
    """The version of the business rules that made a batch of slates."""

    version: str
    refused: str = ""  # version of a newer rules file that was rejected as invalid
    shares: tuple[tuple[str, float], ...] = ()  # by daily quota: its share of the impressions so far


@dataclass(frozen=True, slots=True)
class Slates(RowBatch):
    """Ordered items per request, padded with item -1 where no more are eligible."""

    item: np.ndarray  # (B, n) int32
    score: np.ndarray  # (B, n) float32, calibrated to 0..1 where a ranker scored
    source: np.ndarray  # (B, n) uint32, bit s set when source s returned the item
    reason: np.ndarray  # (B, n) int8, index into handsell.reranking.reasons.REASONS
    reason_item: np.ndarray  # (B, n) int32, the history item named by the reason, or -1
    propensity: np.ndarray  # (B, n) float32, probability of the item here given those above (1 = deterministic)
    sources: tuple[str, ...]
    relaxed: np.ndarray | None = None  # (B, n) uint32, bit c set where constraint c was relaxed; None: none was
    constraints: tuple[str, ...] = ()  # constraints of the request, the first relaxed first
    degraded: tuple[str, ...] = ()
    rules: RulesStamp | None = None

    def __len__(self) -> int:
        return len(self.item)

    def relaxed_constraints(self, row: int, count: int) -> list[str]:
        """Names of the constraints relaxed within the first `count` positions of a slate."""
        if self.relaxed is None or not self.relaxed[row, :count].any():
            return []
        bits = int(np.bitwise_or.reduce(self.relaxed[row, :count]))
        return [name for c, name in enumerate(self.constraints) if bits >> c & 1]
