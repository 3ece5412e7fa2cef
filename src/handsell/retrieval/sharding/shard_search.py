"""One shard: its part of every index, and of the catalog columns that eligibility reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import Requests
from handsell.core.errors import BundleError
from handsell.eligibility.mask import Eligibility
from handsell.retrieval.index.vector_index import VectorIndex
from handsell.retrieval.sharding.numbering import find_items, is_own
from handsell.retrieval.sharding.shard_catalog import find_catalog, renumber_requests
from handsell.retrieval.sharding.sharded_index import FOLDER, Found

WARM_UP_QUERIES, WARM_UP_K = 8, 100


@dataclass(frozen=True, slots=True)
class ShardQuery:
    """What one source asks of a shard."""

    queries: np.ndarray  # (B, D) float32
    k: int  # items requested
    enough: int  # items with which an approximate search is content
    withdrawn: np.ndarray  # (W,) int32 items of the catalog that the source does not want


@dataclass(frozen=True)
class ShardSearch:
    """Searches the items of one shard that a request may show. Live catalog changes are left to the caller."""

    shard: int
    shards: int
    indexes: Mapping[str, VectorIndex]  # by source
    eligibility: Eligibility  # of the shard's rows

    @classmethod
    def load(cls, bundle: Path, config: Config, shard: int, shards: int) -> ShardSearch:
        """Load a shard of the bundle in a folder, memory mapped; raises BundleError for what cannot be read."""
        indexes = {}
        try:
            catalog = Snapshot.load(find_catalog(bundle, shard))
            for name in config.retrieval.enabled:
                folder = bundle / "retrievers" / name / "index" / FOLDER.format(shard)
                if folder.is_dir():
                    indexes[name] = VectorIndex.load(folder)
        except (OSError, ValueError, KeyError) as error:
            raise BundleError(
                f"shard {shard} of bundle {bundle.name} cannot be read ({error}): copy the bundle again, or train a "
                "new one"
            ) from error
        return cls(shard, shards, indexes, Eligibility.of(catalog, config))

    def with_config(self, config: Config) -> ShardSearch:
        """Return the shard with other settings of surfaces."""
        return replace(self, eligibility=self.eligibility.with_config(config))

    async def search(self, requests: Requests, asked: Mapping[str, ShardQuery]) -> dict[str, Found]:
        """Return items and scores (B, k) by source; raises where the mask cannot be computed."""
        catalog = self.eligibility.snapshot
        allowed = self.eligibility.mask(renumber_requests(requests, catalog, self.shard, self.shards))
        return {name: self._search(name, query, allowed) for name, query in asked.items()}

    def _search(self, name: str, query: ShardQuery, allowed: np.ndarray) -> Found:
        own = query.withdrawn[is_own(query.withdrawn, self.shard, self.shards)] // self.shards
        own = own[own < allowed.shape[1]]
        before = allowed[:, own]
        allowed[:, own] = False
        rows, scores = self.indexes[name].search(query.queries, query.k, allowed, query.enough)
        allowed[:, own] = before
        return find_items(rows, self.shard, self.shards), scores

    def warm_up(self) -> ShardSearch:
        """Read the pages that every search reads, by searching for some of the shard's own items."""
        for index in self.indexes.values():
            known = np.flatnonzero(index.known)
            some = known[:: max(len(known) // WARM_UP_QUERIES, 1)][:WARM_UP_QUERIES]
            for query in index.vectors[some].astype(np.float32):
                index.search(query[None], WARM_UP_K, np.ones((1, len(index.vectors)), bool))
        return self
