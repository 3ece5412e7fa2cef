"""Slates and ranked candidates of a bundle that may be given again for a surface's `reuse_seconds`.

A slate is given again only where re-ranking is a function of the request: exploration, new items with a share of
impressions, and business rules draw, count or follow a file. Otherwise ranked candidates are, and re-ranking runs for
each request. A request for what is being computed for another one waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Candidates, Slates
from handsell.serving.graph.users import UserReads
from handsell.serving.http.queries import Query
from handsell.serving.reuse.answer_keys import AnswerKey, build_keys
from handsell.serving.reuse.kept_answers import Kept, KeptAnswers
from handsell.serving.reuse.pending_answers import PendingAnswer, PendingAnswers
from handsell.serving.reuse.user_slate import UserSlate

ENTRY_BYTES = 1_500  # of an entry besides its arrays
ITEM_BYTES = 2_000  # of an item of a slate that has been written
CONFIGS = 256  # changed configs whose settings are kept
EXPECTED = 20_000  # users and surfaces whose slates are known to be kept


class SlateReuse:
    """What one bundle has computed. A new version of the catalog ends everything.

    `settle_s`: a stage in another process follows the catalog up to so much later than this one; what is computed
    meanwhile is not kept.
    """

    def __init__(self, config: Config, change_config: Callable[[str], Config], settle_s: float):
        most = config.serving.reuse_bytes
        self._slates, self._ranked = KeptAnswers(most // 2), KeptAnswers(most - most // 2)
        self._pending_slates: PendingAnswers[UserSlate] = PendingAnswers()
        self._pending_ranked: PendingAnswers[Kept | None] = PendingAnswers()
        self._change_config, self._ranks = change_config, config.ranking.ranked
        self._snapshot: Snapshot | None = None
        self._settle_s, self._since = settle_s, 0.0
        self._is_on = most > 0
        self._expected: dict[tuple[str | None, int], None] = {}  # whose slate is kept, the oldest first
        self._keeps_slates = lru_cache(CONFIGS)(lambda overlay: reranks_alike(change_config(overlay)))

    def build_keys(self, queries: Sequence[Query], reads: UserReads) -> list[AnswerKey | None]:
        """Return the keys of a batch, None for queries whose answers are always computed."""
        self._follow(reads.snapshot)
        allowed = [self._is_on and not query.is_fresh and self._lasts_us(query) > 0 for query in queries]
        if not any(allowed):
            return [None] * len(queries)
        keys = build_keys(queries, reads)
        return [key if may else None for key, may in zip(keys, allowed, strict=True)]

    def expects_slate(self, query: Query) -> bool:
        """Return whether the query's slate is likely to be kept: one for its user and surface was, the last time."""
        return (query.user_id, query.surface) in self._expected and not query.is_fresh

    def find_slate(self, query: Query, key: AnswerKey | None) -> UserSlate | None:
        """Return a slate that is the query's as well, unless an item of it is not available any more."""
        kept = None if key is None else self._slates.find(key.slate, query.time)
        if kept is None or not self._is_available(kept.value.slates.item, query.time):
            self._expected.pop((query.user_id, query.surface), None)
            return None
        self._expect(query)
        if key is not None and not kept.value.rendered:  # it will be, for this answer and for later ones
            self._slates.grow(key.slate, ITEM_BYTES * query.count)
        return replace(kept.value, reused="slate", age_s=(query.time - kept.made_us) / 1e6)

    def find_ranked(self, query: Query, key: AnswerKey | None) -> Kept | None:
        """Return ranked candidates (1, K) that are the query's as well."""
        return None if key is None else self._ranked.find(key.ranked, query.time)

    def keep_slate(self, query: Query, key: AnswerKey | None, snapshot: Snapshot, slate: UserSlate) -> None:
        """Keep a slate, if it is complete and would be made again."""
        if key is None or slate.slates.degraded or not self._keeps_slates(query.overlay) or self._is_old(snapshot):
            return
        slates = _cut(slate.slates, slate.row, query.count)
        value, size = UserSlate(slates, 0, slate.cold), ENTRY_BYTES + _count_bytes(slates)
        self._slates.put(key.slate, Kept(value, query.time, query.time + self._lasts_us(query), size))
        self._expect(query)

    def keep_ranked(
        self, queries: Sequence[Query], keys: Sequence[AnswerKey | None], snapshot: Snapshot, ranked: Candidates | None
    ) -> None:
        """Keep the ranked candidates (B, K) of queries, if they are complete."""
        most = max((query.count for query in queries), default=0)
        if ranked is None or most > self._ranks or self._is_old(snapshot):
            return
        for b, (query, key) in enumerate(zip(queries, keys, strict=True)):
            if key is not None:
                self._ranked.put(key.ranked, self.cut_ranked(query, ranked, b))

    def cut_ranked(self, query: Query, ranked: Candidates, b: int) -> Kept:
        """Return a query's row of ranked candidates (B, K), as it is kept."""
        row = ranked.take(np.array([b]))
        size = ENTRY_BYTES + _count_bytes(row)
        return Kept(row, query.time, query.time + self._lasts_us(query), size)

    def find_pending_slate(self, query: Query, key: AnswerKey) -> PendingAnswer[UserSlate] | None:
        """Return a slate that is being computed and will be the query's as well."""
        return self._pending_slates.find(key.slate, query, self._lasts_us(query))

    def find_pending_ranked(self, query: Query, key: AnswerKey) -> PendingAnswer[Kept | None] | None:
        """Return ranked candidates that are being computed and will be the query's as well."""
        return self._pending_ranked.find(key.ranked, query, self._lasts_us(query))

    def begin_slate(self, query: Query, key: AnswerKey) -> PendingAnswer[UserSlate] | None:
        """Let later queries wait for this one's slate; None if theirs would be others."""
        return self._pending_slates.begin(key.slate, query) if self._keeps_slates(query.overlay) else None

    def begin_ranked(self, query: Query, key: AnswerKey) -> PendingAnswer[Kept | None] | None:
        """Let later queries wait for this one's ranked candidates; None if it asks for more than are ranked."""
        return self._pending_ranked.begin(key.ranked, query) if query.count <= self._ranks else None

    def end(self, key: AnswerKey | None, slate: PendingAnswer | None, ranked: PendingAnswer | None) -> None:
        """Let no more queries wait for a slate and ranked candidates."""
        if key is not None and slate is not None:
            self._pending_slates.end(key.slate, slate)
        if key is not None and ranked is not None:
            self._pending_ranked.end(key.ranked, ranked)

    def _expect(self, query: Query) -> None:
        self._expected[query.user_id, query.surface] = None
        if len(self._expected) > EXPECTED:
            del self._expected[next(iter(self._expected))]

    @property
    def size(self) -> int:
        """Bytes of all that is kept."""
        return self._slates.size + self._ranked.size

    def _follow(self, snapshot: Snapshot) -> None:
        if snapshot is not self._snapshot:
            self._snapshot, self._since = snapshot, time.monotonic()
            self._slates.clear()
            self._expected.clear()
            self._ranked.clear()
            self._pending_slates.clear()
            self._pending_ranked.clear()

    def _is_old(self, snapshot: Snapshot) -> bool:
        """Whether the catalog has changed since a request began, or so lately that a stage may not know it."""
        return snapshot is not self._snapshot or time.monotonic() - self._since < self._settle_s

    def _lasts_us(self, query: Query) -> int:
        surfaces = tuple(self._change_config(query.overlay).surfaces.values())
        return int(surfaces[query.surface].reuse_seconds * 1e6)

    def _is_available(self, items: np.ndarray, time_us: int) -> bool:
        s, item = self._snapshot, items[items != NONE]
        assert s is not None
        return bool((s.available[item] & (s.published[item] <= time_us) & (time_us < s.expires[item])).all())


def reranks_alike(config: Config) -> bool:
    """Return whether re-ranking makes the same slate of the same candidates each time."""
    exploration, rules = config.reranking.exploration, config.reranking.rules
    return not exploration.share and not exploration.new_items.share and rules is None


def _cut(slates: Slates, row: int, count: int) -> Slates:
    """Copy the first `count` positions of a row, so that nothing else of the batch stays in memory."""
    names = ("item", "score", "source", "reason", "reason_item", "propensity")
    cut = {name: getattr(slates, name)[row : row + 1, :count].copy() for name in names}
    relaxed = None if slates.relaxed is None else slates.relaxed[row : row + 1, :count].copy()
    return replace(slates, relaxed=relaxed, **cut)


def _count_bytes(batch: Slates | Candidates) -> int:
    arrays = (getattr(batch, name) for name in batch.__slots__)
    return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
