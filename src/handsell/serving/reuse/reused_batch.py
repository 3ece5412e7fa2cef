"""A micro-batch of queries of which some have kept slates or ranked candidates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from handsell.core.batches import Candidates, Requests, Slates
from handsell.core.funnel import Funnel
from handsell.core.protocols import RankingStage
from handsell.serving.graph.users import UserReads
from handsell.serving.http.queries import Query
from handsell.serving.reuse.answer_keys import AnswerKey
from handsell.serving.reuse.kept_answers import Kept
from handsell.serving.reuse.pending_answers import PendingAnswer
from handsell.serving.reuse.slate_reuse import SlateReuse
from handsell.serving.reuse.user_slate import UserSlate


@dataclass(frozen=True)
class KeptCandidates:
    """The stages of candidates and ranking, for requests whose ranked candidates are kept."""

    ranked: Candidates

    async def candidates(self, requests: Requests, k: int) -> Candidates:
        return self.ranked

    async def rank(self, requests: Requests, candidates: Candidates, k: int) -> Candidates:
        return candidates


@dataclass
class RecordedRanking:
    """A ranking stage that holds on to what it returned last."""

    stage: RankingStage
    ranked: Candidates | None = None

    async def rank(self, requests: Requests, candidates: Candidates, k: int) -> Candidates:
        self.ranked = await self.stage.rank(requests, candidates, k)
        return self.ranked


@dataclass
class BatchPart:
    """Queries that go through the funnel together, all with kept candidates or all without."""

    places: list[int]
    queries: list[Query]
    reads: UserReads
    kept: list[Kept] = field(default_factory=list)
    ranking: RecordedRanking | None = None

    @property
    def overlay(self) -> str:
        """The changed settings, which all queries of a batch have in common."""
        return self.queries[0].overlay

    def build_funnel(self, funnel: Funnel) -> Funnel:
        """Return the funnel with the kept candidates, or with a record of those that are computed."""
        if self.kept:
            stage = KeptCandidates(_stack([kept.value for kept in self.kept]))
            return replace(funnel, candidates=stage, ranking=stage)
        self.ranking = RecordedRanking(funnel.ranking)
        return replace(funnel, ranking=self.ranking)


class ReusedBatch:
    """Finds the slates of a batch of queries, or who computes them.

    `hand_over` gives the future by which a query's caller waits for its slate.
    """

    def __init__(
        self, reuse: SlateReuse, queries: Sequence[Query], reads: UserReads, keys: Sequence[AnswerKey | None],
        hand_over: Callable[[Query], asyncio.Future[UserSlate]],
    ):  # fmt: skip
        self._reuse, self._queries, self._reads, self._keys = reuse, queries, reads, keys
        self._hand_over = hand_over
        self._found: list[UserSlate | None] = [None] * len(queries)
        self._slates: dict[int, PendingAnswer[UserSlate]] = {}  # that this batch computes and others may wait for
        self._ranked: dict[int, PendingAnswer[Kept | None]] = {}  # candidates, likewise
        self._later: dict[int, asyncio.Future[Kept | None]] = {}  # queries that wait for ranked candidates

    @property
    def answers(self) -> list[UserSlate | None]:
        """The slates, None for queries that have been handed over."""
        return self._found

    def find_slates(self) -> Iterator[tuple[Query, UserSlate]]:
        """Yield the queries whose slates are kept."""
        for place, (query, key) in enumerate(zip(self._queries, self._keys, strict=True)):
            if (slate := self._reuse.find_slate(query, key)) is not None:
                self._found[place] = slate
                yield query, slate

    def split(self) -> list[BatchPart]:
        """Return the queries whose slates this batch computes at once.

        Queries whose slates are being computed already, in this batch or another one, are handed over. Those whose
        ranked candidates are follow in `split_later`.
        """
        left = [place for place, slate in enumerate(self._found) if slate is None]
        kept = {place: self._reuse.find_ranked(self._queries[place], self._keys[place]) for place in left}
        return self._group({place: one for place, one in kept.items() if one is not None or not self._wait(place)})

    async def split_later(self) -> list[BatchPart]:
        """Return the queries that wait for ranked candidates, as soon as these are known."""
        return self._group({place: await ranked for place, ranked in self._later.items()})

    def _group(self, kept: dict[int, Kept | None]) -> list[BatchPart]:
        """Return the queries by kept candidates of one shape first, then all others."""
        groups: dict[object, list[int]] = {}
        for place, one in kept.items():
            groups.setdefault(None if one is None else _shape(one.value), []).append(place)
        others = groups.pop(None, [])
        return [self._take(places, kept) for places in (*groups.values(), others) if places]

    def _wait(self, place: int) -> bool:
        """Let a query wait for what somebody else computes; else let later ones wait for this query's."""
        query, key = self._queries[place], self._keys[place]
        if key is None:
            return False
        if (slate := self._reuse.find_pending_slate(query, key)) is not None:
            slate.waiting.append((query, self._hand_over(query)))
            return True
        if (ranked := self._reuse.find_pending_ranked(query, key)) is not None:
            self._later[place] = asyncio.get_running_loop().create_future()
            ranked.waiting.append((query, self._later[place]))
            return True
        if (slate := self._reuse.begin_slate(query, key)) is not None:
            self._slates[place] = slate
        if (ranked := self._reuse.begin_ranked(query, key)) is not None:
            self._ranked[place] = ranked
        return False

    def fail(self, error: Exception) -> None:
        """Pass a failure on to all that wait for a slate of this batch; who waits for candidates computes them."""
        for place in {*self._slates, *self._ranked}:
            slate, ranked = self._end(place)
            if slate is not None:
                slate.fail(error)
            if ranked is not None:
                ranked.finish(lambda query: None)

    def _end(self, place: int) -> tuple[PendingAnswer[UserSlate] | None, PendingAnswer[Kept | None] | None]:
        """Let no more queries wait for a query's slate and candidates; return both."""
        slate, ranked = self._slates.pop(place, None), self._ranked.pop(place, None)
        self._reuse.end(self._keys[place], slate, ranked)
        return slate, ranked

    def _finish(self, place: int, slate: UserSlate, ranked: Candidates | None, row: int) -> None:
        """Answer the queries that wait for a query's slate, or for its row of the ranked candidates (B, K)."""
        waiting, others = self._end(place)
        asked = self._queries[place]
        if waiting is not None:
            waiting.finish(lambda query: replace(slate, reused="slate", age_s=(query.time - asked.time) / 1e6))
        if others is not None and others.waiting:
            kept = None if ranked is None else self._reuse.cut_ranked(asked, ranked, row)
            others.finish(lambda query: kept)

    def _take(self, places: list[int], kept: dict[int, Kept | None]) -> BatchPart:
        is_whole = len(places) == len(self._queries)
        return BatchPart(
            places,
            [self._queries[place] for place in places],
            self._reads if is_whole else self._reads.take(places),
            [one for place in places if (one := kept[place]) is not None],
        )

    def add(self, part: BatchPart, slates: Slates, cold: np.ndarray) -> Iterator[tuple[Query, UserSlate]]:
        """Keep the slates (B, n) of a part for later requests, and yield its queries with them."""
        keys, snapshot = [self._keys[place] for place in part.places], self._reads.snapshot
        ranked = None if part.ranking is None or slates.degraded else part.ranking.ranked
        self._reuse.keep_ranked(part.queries, keys, snapshot, ranked)
        for row, (place, query) in enumerate(zip(part.places, part.queries, strict=True)):
            slate = UserSlate(slates, row, bool(cold[row]))
            if part.kept:
                age_s = (query.time - part.kept[row].made_us) / 1e6
                slate = replace(slate, reused="candidates", age_s=age_s)
            else:
                self._reuse.keep_slate(query, keys[row], snapshot, slate)
                self._finish(place, slate, ranked, row)
            self._found[place] = slate
            yield query, slate


def _shape(ranked: Candidates) -> tuple[int, int, tuple[str, ...]]:
    """Return what candidates (1, K) of one batch have in common."""
    return ranked.item.shape[1], ranked.carried, ranked.sources


def _stack(ranked: Sequence[Candidates]) -> Candidates:
    """Return candidates (1, K) of one shape as (B, K)."""
    names = ("item", "fused", "source_score", "source_rank", "score")
    stacked: dict[str, Any] = {name: np.concatenate([getattr(one, name) for one in ranked]) for name in names}
    return replace(ranked[0], **stacked)
