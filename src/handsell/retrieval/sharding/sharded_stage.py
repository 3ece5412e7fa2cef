"""The candidate stage over shards that run elsewhere: encode once, ask all of them, merge their answers exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from handsell.catalog.live_snapshot import LiveSnapshot
from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.failures import Failures
from handsell.retrieval.index.topk import make_empty_rows
from handsell.retrieval.index.vector_index import VectorIndex
from handsell.retrieval.sharding.numbering import is_own
from handsell.retrieval.sharding.shard_catalog import strip_requests
from handsell.retrieval.sharding.shard_search import ShardQuery
from handsell.retrieval.sharding.sharded_index import (
    Found,
    ShardedIndex,
    find_cut_rows,
    find_enough,
    merge_found,
)
from handsell.retrieval.stage import LocalCandidates

Answers = list[dict[str, Found] | None]  # of each shard, None where it failed


class Shards(Protocol):
    """The shards of a bundle, wherever they run."""

    async def search(self, shard: int, requests: Requests, asked: Mapping[str, ShardQuery]) -> dict[str, Found]: ...


class ShardedSource(Protocol):
    """A retriever whose index is sharded, such as EmbeddingRetriever."""

    @property
    def index(self) -> ShardedIndex: ...
    @property
    def encoder(self) -> Any: ...
    @property
    def superseded(self) -> np.ndarray: ...
    def add_live(self, found: Found, queries: np.ndarray, k: int, eligible: np.ndarray) -> Found: ...


@dataclass(frozen=True)
class ShardedCandidates(LocalCandidates):
    """Candidates from retrievers in this process, whose sharded indexes are searched by `client`.

    A shard that fails is left out and named in `degraded` as `shard:<number>`. The shards know the catalog of the
    bundle: items that have changed since are withdrawn from them by number and searched here, as of this stage's own
    version of the catalog.
    """

    client: Shards
    shards: int
    changed: np.ndarray  # (C,) int32 ascending, items of the bundle that have changed since
    changed_vectors: Mapping[str, VectorIndex] = field(default_factory=dict)  # (C, D) of each sharded source

    def with_snapshot(self, snapshot: Snapshot) -> ShardedCandidates:
        made = super().with_snapshot(snapshot)
        assert isinstance(made, ShardedCandidates)
        if not isinstance(snapshot, LiveSnapshot):
            return made
        changed = snapshot.changed[snapshot.changed < len(snapshot.base)]
        return replace(made, changed=changed, changed_vectors=self.read_vectors(changed))

    def read_vectors(self, items: np.ndarray) -> dict[str, VectorIndex]:
        """Return exact indexes of items (C,) by source; vectors that this stage holds are not read again."""
        found = {}
        for name, source in self.sharded.items():
            main = source.index.vectors
            vectors = np.zeros((len(items), main.shape[1]), np.float32)
            fresh = items < len(main)
            if name in self.changed_vectors:
                held = np.isin(items, self.changed)
                vectors[held] = self.changed_vectors[name].vectors[np.searchsorted(self.changed, items[held])]
                fresh &= ~held
            vectors[fresh] = main[items[fresh]]
            found[name] = VectorIndex.exact(vectors)
        return found

    @property
    def without_shards(self) -> LocalCandidates:
        """The stage with the sources that need no shards."""
        local = {name: one for name, one in self.retrievers.items() if name not in self.sharded}
        return LocalCandidates(local, self.eligibility, self.config)

    @cached_property
    def sharded(self) -> dict[str, ShardedSource]:
        """The enabled sources whose index is sharded."""
        found: dict[str, Any] = {name: self.retrievers[name] for name in self.sources}
        return {name: one for name, one in found.items() if isinstance(getattr(one, "index", None), ShardedIndex)}

    async def candidates(self, requests: Requests, k: int) -> Candidates:
        search = ShardedRun(self, requests)
        await search.start()
        eligible = self.eligibility.mask(requests)  # while the shards search
        found, degraded = await search.collect(eligible)
        return self.fuse(requests, eligible, found, degraded, k)

    async def retrieve_all(
        self, requests: Requests, eligible: np.ndarray, item: int | None = None
    ) -> tuple[list[Found], list[str]]:
        search = ShardedRun(self, requests, item)
        await search.start()
        return await search.collect(eligible)


class ShardedRun:
    """One batch: queries to the shards, and the sources' answers."""

    def __init__(self, stage: ShardedCandidates, requests: Requests, item: int | None = None):
        """item: one more that is searched here, under the caller's mask."""
        self.stage, self.requests = stage, requests
        self.beside, self.vectors = stage.changed, stage.changed_vectors
        if item is not None:
            self.beside = np.union1d(stage.changed, [item]).astype(np.int32)
            self.vectors = stage.read_vectors(self.beside)
        self.failures = Failures()
        self.asked: dict[str, ShardQuery] = {}
        self.tasks: list[asyncio.Task[dict[str, Found] | None]] = []

    async def start(self) -> None:
        """Encode the batch and send it to all shards."""
        stage = self.stage
        for name, source in stage.sharded.items():
            with self.failures.tolerate(f"retriever:{name}"):
                k = stage.find_k(name)
                queries = np.asarray(source.encoder.encode(self.requests), np.float32)
                withdrawn = self.beside
                if not np.isin(source.superseded, withdrawn).all():
                    withdrawn = np.union1d(withdrawn, source.superseded).astype(np.int32)
                self.asked[name] = ShardQuery(queries, k, find_enough(k, stage.shards), withdrawn)
        if self.asked:
            self.tasks = self._send(strip_requests(self.requests), self.asked)
            await asyncio.sleep(0)  # the calls leave before this process computes its own part

    async def collect(self, eligible: np.ndarray) -> tuple[list[Found], list[str]]:
        """Return what each source found, in the order of the sources, and the names of what failed."""
        stage, requests, local = self.stage, self.requests, {}
        for name in stage.sources:
            if name not in self.asked:
                local[name] = make_empty_rows(len(requests), 1)
                if name not in stage.sharded:
                    with self.failures.tolerate(f"retriever:{name}"):
                        local[name] = stage.keep_named(name, requests, stage.retrieve(name, requests, eligible))
        answers = await self._gather(self.tasks)
        answers = await self._ask_again(answers)
        found = []
        for name in stage.sources:
            returned = local.get(name, make_empty_rows(len(requests), 1))
            if name in self.asked:
                with self.failures.tolerate(f"retriever:{name}"):
                    returned = stage.keep_named(name, requests, self._merge(name, answers, eligible))
            found.append(returned)
        return found, list(self.failures.names)

    def _send(self, requests: Requests, asked: Mapping[str, ShardQuery]) -> list[asyncio.Task[dict[str, Found] | None]]:
        return [asyncio.create_task(self._ask(shard, requests, asked)) for shard in range(self.stage.shards)]

    async def _ask(self, shard: int, requests: Requests, asked: Mapping[str, ShardQuery]) -> dict[str, Found] | None:
        """Return a shard's answer; None where it fails, which `degraded` names."""
        with self.failures.tolerate(f"shard:{shard}"):
            own: dict[int, np.ndarray] = {}  # one array for all sources is sent once
            for query in asked.values():
                gone = query.withdrawn
                own.setdefault(id(gone), gone[is_own(gone, shard, self.stage.shards)])
            asked = {name: replace(query, withdrawn=own[id(query.withdrawn)]) for name, query in asked.items()}
            found = await self.stage.client.search(shard, requests, asked)
            if missing := asked.keys() - found.keys():
                raise ValueError(f"shard {shard} has no index of {', '.join(sorted(missing))}")
            return found
        return None

    async def _gather(self, tasks: Sequence[asyncio.Task[dict[str, Found] | None]]) -> Answers:
        return list(await asyncio.gather(*tasks))

    async def _ask_again(self, answers: Answers) -> Answers:
        """Ask for all k items for the requests that got fewer although a shard was content with less."""
        short = np.zeros(len(self.requests), bool)
        for name, query in self.asked.items():
            given = [answer[name] for answer in answers if answer is not None]
            if given and not self.stage.sharded[name].index.is_exact:
                short |= find_cut_rows(given, query.k, query.enough)
        if not short.any():
            return answers
        asked = {
            name: replace(query, queries=query.queries[short], enough=query.k) for name, query in self.asked.items()
        }
        again = await self._gather(self._send(strip_requests(self.requests.take(short)), asked))
        for answer, more in zip(answers, again, strict=True):
            if answer is not None and more is not None:
                for name, (items, scores) in more.items():
                    answer[name] = tuple(part.copy() for part in answer[name])  # type: ignore[assignment]
                    answer[name][0][short], answer[name][1][short] = items, scores
        return answers

    def _merge(self, name: str, answers: Answers, eligible: np.ndarray) -> Found:
        """Merge a source's answers of all shards with the items beside them and the source's live items."""
        query, source = self.asked[name], self.stage.sharded[name]
        parts = [answer[name] for answer in answers if answer is not None]
        parts.append(self._search_beside(name, query, eligible))
        return source.add_live(merge_found(parts, query.k), query.queries, query.k, eligible)

    def _search_beside(self, name: str, query: ShardQuery, eligible: np.ndarray) -> Found:
        """Search the changed items, exactly."""
        source, beside = self.stage.sharded[name], self.beside
        if not len(beside):
            return make_empty_rows(len(query.queries), 1)
        allowed = eligible[:, beside] & ~np.isin(beside, source.superseded)
        rows, scores = self.vectors[name].search(query.queries, query.k, allowed)
        return np.where(rows == NONE, NONE, beside[rows]).astype(np.int32), scores
