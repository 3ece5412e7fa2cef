"""The candidate stage: one eligibility mask, all retrievers, one fusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from handsell.catalog.new_items import is_new
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.failures import Failures
from handsell.core.protocols import Retriever
from handsell.eligibility.mask import Eligibility
from handsell.retrieval.backfill import MIN_CANDIDATES, backfill
from handsell.retrieval.config import RetrievalConfig
from handsell.retrieval.following import follow_snapshot
from handsell.retrieval.fusion import CarriedItems, carry_new_items, fuse_sources
from handsell.retrieval.index.topk import make_empty_rows

Found = tuple[np.ndarray, np.ndarray]  # items and scores (B, k) of one source


@dataclass(frozen=True)
class LocalCandidates:
    """Candidates from retrievers in this process; sources are the enabled ones, in the order of the config.

    A retriever that raises is left out and named in `degraded` as `retriever:<name>`; its empty column stays, so that
    the ranker's features keep their places. The eligibility mask fails closed: it raises.
    """

    retrievers: Mapping[str, Retriever]
    eligibility: Eligibility
    config: RetrievalConfig
    carried: CarriedItems = field(default=CarriedItems(), kw_only=True)

    def with_snapshot(self, snapshot: Snapshot) -> LocalCandidates:
        """Return the stage on the next version of the live catalog."""
        retrievers = {name: follow_snapshot(retriever, snapshot) for name, retriever in self.retrievers.items()}
        return replace(self, retrievers=retrievers, eligibility=self.eligibility.with_snapshot(snapshot))

    def with_config(self, config: Config) -> LocalCandidates:
        """Return the stage with other settings of surfaces and weights of sources."""
        eligibility, carried = self.eligibility.with_config(config), CarriedItems.of(config)
        return replace(self, eligibility=eligibility, config=config.retrieval, carried=carried)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        return tuple(name for name in self.config.enabled if name in self.retrievers)

    async def candidates(self, requests: Requests, k: int) -> Candidates:
        """At most k candidates per request, best fused score first; a filtered request is backfilled."""
        eligible = self.eligibility.mask(requests)
        found, degraded = await self.retrieve_all(requests, eligible)
        return self.fuse(requests, eligible, found, degraded, k)

    async def retrieve_all(
        self, requests: Requests, eligible: np.ndarray, item: int | None = None
    ) -> tuple[list[Found], list[str]]:
        """What each source returns of the eligible (B, I), and the names of those that failed.

        `item` is one whose eligibility the caller has changed.
        """
        found, failures = [], Failures()
        for name in self.sources:
            with failures.tolerate(f"retriever:{name}"):
                found.append(self.keep_named(name, requests, self.retrieve(name, requests, eligible)))
                continue
            found.append(make_empty_rows(len(requests), 1))
        return found, list(failures.names)

    def fuse(
        self, requests: Requests, eligible: np.ndarray, found: list[Found], degraded: list[str], k: int
    ) -> Candidates:
        """Fuse what the sources returned into at most k candidates, backfilled where a filter left too few.

        Where exploration uses them, new items beyond the best k are appended.
        """
        found = found or [make_empty_rows(len(requests), 1)]
        most = sum(items.shape[1] for items, _ in found) if self.carried.count else k
        fused = fuse_sources(found, self.sources, self._weights, max(k, most), tuple(degraded))
        if fused.item.shape[1] > k:
            new = is_new(self.eligibility.snapshot, fused.item, requests.time, self.carried.days)
            fused = carry_new_items(fused, k, new, self.carried.count)
        filtered = self.eligibility.has_filter(requests)
        if not filtered.any():
            return fused
        filtered &= ~self._names_source(requests, None)
        return backfill(fused, eligible, filtered, min(k, MIN_CANDIDATES))

    @cached_property
    def _weights(self) -> list[float]:
        """Weights of the sources."""
        return [self.config[name].weight for name in self.sources]

    def _names_source(self, requests: Requests, source: str | None) -> np.ndarray:
        """(B,) bool: the surface names its sources, this one among them; with None: it names any."""
        return self._named[source][requests.surface]

    @cached_property
    def _named(self) -> dict[str | None, np.ndarray]:
        """By source, and for None: by surface (S,) bool, whether it names it, or any."""
        named = [surface.only for surface in self.eligibility.surfaces]
        found: dict[str | None, np.ndarray] = {
            name: np.array([name in only for only in named]) for name in self.sources
        }
        return {**found, None: np.array([bool(only) for only in named])}

    @cached_property
    def _names_any(self) -> bool:
        """Whether any surface names its sources."""
        return bool(self._named[None].any())

    def find_k(self, name: str) -> int:
        """Items requested from a source: no more than the catalog has."""
        return self._ks[name]

    @cached_property
    def _ks(self) -> dict[str, int]:
        most = max(len(self.eligibility.snapshot), 1)
        return {name: min(self.config[name].k, most) for name in self.config.sections}

    def retrieve(self, name: str, requests: Requests, eligible: np.ndarray) -> Found:
        """What one source returns."""
        return self.retrievers[name].retrieve(requests, self.find_k(name), eligible)

    def keep_named(self, name: str, requests: Requests, found: Found) -> Found:
        """Drop what a source found for surfaces that name other sources; raises ValueError for a wrong shape."""
        items, scores = found
        if items.shape != scores.shape or items.shape[0] != len(requests):
            raise ValueError(f"{name} gave items {items.shape} and scores {scores.shape} for {len(requests)} requests")
        if not self._names_any:
            return items, scores
        unwanted = self._names_source(requests, None) & ~self._names_source(requests, name)
        if not unwanted.any():
            return items, scores
        return np.where(unwanted[:, None], NONE, items), np.where(unwanted[:, None], np.nan, scores)
