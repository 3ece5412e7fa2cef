"""The candidate stage over shards answers as the stage with one index, under filters and live catalog changes."""

import asyncio
import logging
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest
from test_live_content import draw_put, draw_shelf
from test_live_items import Change

from handsell.catalog.live_items import LiveItems
from handsell.config import Config
from handsell.core.batches import Ragged, UserExclusions
from handsell.core.funnel import run_local
from handsell.data.interactions import Interactions
from handsell.eligibility.mask import Eligibility
from handsell.retrieval import registry
from handsell.retrieval.content_vectors import fit_content_vectors
from handsell.retrieval.explain import BEYOND_K, explain_candidate
from handsell.retrieval.score_items import score_items
from handsell.retrieval.sharding.shard_catalog import save_shard_catalogs
from handsell.retrieval.sharding.shard_search import ShardSearch
from handsell.retrieval.sharding.sharded_index import ShardedIndex
from handsell.retrieval.sharding.sharded_stage import ShardedCandidates
from handsell.retrieval.stage import LocalCandidates
from handsell.testing.small_catalog import NOW, draw_requests

SHARDS, ITEMS, K = 3, 200, 120
SOURCES = ("als", "content", "spectral", "item_knn", "popularity")
RAW = {
    "name": "shelf",
    "data": {"format": "tables", "path": "shelf"},
    "events": {"types": {"play": {"weight": 1.0}}},
    "features": {"user_attributes": {"country": "text"}},
    "surfaces": {
        "home": {"repeat": "exclude"},
        "calm": {"repeat": "allow", "filter": "item.tempo < 0.5"},
        "old": {"repeat": "allow", "only": ["als"]},
    },
    "retrieval": {
        **{name: {"enabled": True, "k": 40} for name in SOURCES},
        "als": {"k": 40, "embedding_size": 8},
        "two_tower": {"enabled": False},
    },
}


class LocalShards:
    """Shards in this process; those in `dead` fail."""

    def __init__(self, parts, dead=()):
        self.parts, self.dead, self.calls = parts, dead, 0

    async def search(self, shard, requests, asked):
        self.calls += 1
        if shard in self.dead:
            raise ConnectionError("the node is gone")
        return await self.parts[shard].search(requests, asked)


class Bench:
    """One index and its shards of the same fit, saved and loaded."""

    def __init__(self, folder, **sizes):
        rng = np.random.default_rng(3)
        self.shelf = draw_shelf(rng, ITEMS)
        order = np.sort(rng.integers(0, 60, 1500)).astype(np.int32)
        events = Interactions(
            order, rng.integers(0, ITEMS, 1500).astype(np.int32), np.zeros(1500, np.int8),
            NOW - 10**9 * np.arange(1500, 0, -1), np.ones(1500, np.float32), 60, ITEMS,
        )  # fmt: skip
        content = fit_content_vectors(self.shelf, 16, before=NOW, columns=["tempo"])
        self.stages, self.configs = {}, {}
        for shards in (1, SHARDS):
            raw = {**RAW, "retrieval": {**RAW["retrieval"], "shards": shards, **sizes}}
            config = self.configs[shards] = Config.model_validate(raw)
            path = folder / str(shards)
            for name in config.retrieval.enabled:
                registry.fit(name, events, config.retrieval, content).save(path / "retrievers" / name)
            models = {n: registry.load(n, path / "retrievers" / n) for n in config.retrieval.enabled}
            self.stages[shards] = LocalCandidates(models, Eligibility.of(self.shelf, config), config.retrieval)
        save_shard_catalogs(self.shelf, SHARDS, folder / str(SHARDS))
        self.parts = [ShardSearch.load(folder / str(SHARDS), self.configs[SHARDS], s, SHARDS) for s in range(SHARDS)]

    def remote(self, client=None):
        local = self.stages[SHARDS]
        return ShardedCandidates(
            local.retrievers, local.eligibility, local.config, client or LocalShards(self.parts), SHARDS,
            np.zeros(0, np.int32),
        )  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def approximate(tmp_path_factory):
    """All lists are read, so that the shards equal one index."""
    return Bench(tmp_path_factory.mktemp("bundle"), flat_below=20, index_recall=0.99)


def draw_batch(rng, snapshot, rows=6):
    """Requests that use every kind of exclusion, on all surfaces, with and without filters."""
    drawn = draw_requests(rng, snapshot, rows)
    few = [rng.integers(0, len(snapshot), rng.integers(0, 5)) for _ in range(4 * rows)]
    shown, capped, exclude = (Ragged.from_rows(few[i * rows : (i + 1) * rows]) for i in range(3))
    creators = Ragged.from_rows([rng.integers(0, len(snapshot.creators), rng.integers(0, 3)) for _ in range(rows)])
    tags = Ragged.from_rows([rng.integers(0, len(snapshot.tags), rng.integers(0, 2)) for _ in range(rows)])
    exclusions = UserExclusions(shown, capped, creators, tags, np.arange(rows) == 5)
    attributes = np.array([["NL"] if b % 2 else [None] for b in range(rows)], object)
    texts = [
        None,
        "item.tempo > 0",
        "user.country == 'NL' and item.tempo < 1",
        "item.item_id in ['i4', 'i5']",
        None,
        None,
    ]
    surface = rng.integers(0, 3, rows).astype(np.int8)
    return replace(drawn, surface=surface, exclude=exclude, exclusions=exclusions, attributes=attributes).with_filters(
        texts[:rows]
    )


def assert_equal(one, other):
    assert (one.sources, one.degraded) == (other.sources, other.degraded)
    for field in fields(one):
        value = getattr(one, field.name)
        if isinstance(value, np.ndarray):
            assert np.array_equal(value, getattr(other, field.name), equal_nan=True), field.name


def ask(stage, requests):
    return asyncio.run(stage.candidates(requests, K))


@pytest.mark.parametrize("seed", range(6))
def test_candidates_are_those_of_one_index(bench, seed):
    requests = draw_batch(np.random.default_rng(seed), bench.shelf)
    expected = run_local(bench.stages[1].candidates(requests, K))
    assert (expected.item != -1).sum() > 40
    assert_equal(run_local(bench.stages[SHARDS].candidates(requests, K)), expected)
    assert_equal(ask(bench.remote(), requests), expected)


@pytest.mark.parametrize("seed", range(6))
def test_candidates_follow_the_live_catalog(bench, seed):
    """New, changed and deleted items, new creators and tags: the shards know none of them."""
    rng = np.random.default_rng(seed)
    live, one, remote = LiveItems(bench.shelf, np.full(3, np.nan), {}), bench.stages[1], bench.remote()
    for batch in range(3):
        changes = [draw_put(rng, bench.shelf, f"new{batch}{n}") for n in range(8)]
        changes += [draw_put(rng, bench.shelf, f"i{n}") for n in rng.integers(0, ITEMS, 12)]
        changes += [Change(f"i{n}", "delete") for n in rng.integers(0, ITEMS, 8)]
        changes.append(
            Change(f"i{rng.integers(ITEMS)}", "patch", {"tempo": 9.0, "creators": ["nobody"], "tags": ["x"]})
        )
        snapshot = live.apply(changes)
        one, remote = one.with_snapshot(snapshot), remote.with_snapshot(snapshot)
        requests = draw_batch(rng, snapshot)
        expected = run_local(one.candidates(requests, K))
        assert_equal(ask(remote, requests), expected)
    assert len(remote.changed) > 30 and (expected.item >= ITEMS).any()
    assert not snapshot.is_deleted(np.maximum(expected.item, 0)).any()


@pytest.mark.parametrize("seed", range(3))
def test_approximate_shards_in_one_process_and_apart_give_the_same(approximate, seed):
    requests = draw_batch(np.random.default_rng(seed), approximate.shelf)
    assert not approximate.stages[SHARDS].retrievers["als"].index.is_exact
    assert_equal(ask(approximate.remote(), requests), run_local(approximate.stages[SHARDS].candidates(requests, K)))


@pytest.mark.parametrize("kind", ["bench", "approximate"])
def test_a_dead_shard_is_named_and_the_others_answer(request, kind, caplog):
    bench = request.getfixturevalue(kind)
    requests = draw_batch(np.random.default_rng(1), bench.shelf)
    with caplog.at_level(logging.CRITICAL):
        found = ask(bench.remote(LocalShards(bench.parts, dead=(2,))), requests)
        none = ask(bench.remote(LocalShards(bench.parts, dead=(0, 1, 2))), requests)
    assert found.degraded == ("shard:2",)
    allowed = bench.stages[1].eligibility.mask(requests)
    for b, row in enumerate(found.item):
        assert allowed[b, row[row != -1]].all()
    als = found.source_rank[:, :, found.sources.index("als")]
    assert np.isfinite(als).any() and not (np.isfinite(als) & (found.item % SHARDS == 2)).any()
    assert none.degraded == ("shard:0", "shard:1", "shard:2") and none.sources == found.sources
    assert np.isnan(none.source_rank[:, :, none.sources.index("als")]).all() and (none.item != -1).any()


def test_a_shard_whose_mask_fails_returns_nothing(bench, caplog):
    requests = draw_batch(np.random.default_rng(1), bench.shelf)
    broken = replace(bench.parts[1], eligibility=replace(bench.parts[1].eligibility, surfaces=()))
    with caplog.at_level(logging.CRITICAL):
        found = ask(bench.remote(LocalShards([bench.parts[0], broken, bench.parts[2]])), requests)
    assert found.degraded == ("shard:1",)


def test_a_shard_that_was_content_with_less_is_asked_again(tmp_path):
    """All eligible items are in one shard, which reads one list of about five items where ten are requested."""
    bench = Bench(tmp_path, flat_below=20, als={"k": 10, "embedding_size": 8})

    def read_one_list(index):
        settings = replace(index.approximate.settings, nprobe=1)
        return replace(index, approximate=replace(index.approximate, settings=settings))

    parts = tuple(map(read_one_list, bench.stages[SHARDS].retrievers["als"].index.parts))
    als = replace(bench.stages[SHARDS].retrievers["als"], index=ShardedIndex(parts))
    local = replace(bench.stages[SHARDS], retrievers={**bench.stages[SHARDS].retrievers, "als": als})
    shards = [replace(one, indexes={**one.indexes, "als": parts[s]}) for s, one in enumerate(bench.parts)]
    client = LocalShards(shards)
    others = np.flatnonzero(np.arange(ITEMS) % SHARDS != 1)
    requests = draw_requests(np.random.default_rng(2), bench.shelf, 3)
    requests = replace(requests, surface=np.full(3, 2, np.int8), exclude=Ragged.from_rows([others] * 3))
    found = ask(replace(bench.remote(client), retrievers=local.retrievers), requests)
    assert client.calls == 2 * SHARDS
    assert (np.isfinite(found.source_rank[:, :, found.sources.index("als")]).sum(axis=1) == 10).all()
    assert_equal(found, run_local(local.candidates(requests, K)))


def test_an_item_is_explained_and_scored_as_with_one_index(bench):
    requests = draw_batch(np.random.default_rng(4), bench.shelf).take(slice(0, 1))
    outcomes = set()
    for item in range(0, ITEMS, 9):
        expected = run_local(explain_candidate(bench.stages[1], requests, item, 20))
        found = asyncio.run(explain_candidate(bench.remote(), requests, item, 20))
        assert found[1] == expected[1]
        assert_equal(found[0], expected[0])
        outcomes |= {source.outcome for source in found[1].sources}
    assert BEYOND_K in outcomes
    items = np.arange(0, 60)[None]
    assert_equal(
        run_local(score_items(bench.remote(), requests, items)),
        run_local(score_items(bench.stages[1], requests, items)),
    )


def test_a_shard_holds_its_own_rows_only(bench, tmp_path):
    for shard, part in enumerate(bench.parts):
        own = np.arange(shard, ITEMS, SHARDS)
        catalog = part.eligibility.snapshot
        assert len(catalog) == len(own) and np.array_equal(catalog.creator, bench.shelf.creator[own])
        assert catalog.metadata["title"].to_pylist() == bench.shelf.metadata["title"].take(pa.array(own)).to_pylist()
        assert set(part.indexes) == {"als", "content", "spectral"}
        assert all(len(index.vectors) == len(own) for index in part.indexes.values())
        assert part.warm_up() is part


def test_warm_up_needs_no_shards(bench):
    requests = draw_batch(np.random.default_rng(5), bench.shelf)
    client = LocalShards(bench.parts)
    found = run_local(bench.remote(client).without_shards.candidates(requests, K))
    assert found.sources == ("popularity", "item_knn") and client.calls == 0
