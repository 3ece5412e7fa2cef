"""New items get their share of the day's impressions, paced, and no more than their number of impressions each."""

import json
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from event_stores import make_slate, open_sqlite
from handsell.catalog.new_items import count_events, is_new
from handsell.catalog.snapshot import ALWAYS
from handsell.config import Config
from handsell.core.batches import NONE, Candidates
from handsell.core.funnel import run_local
from handsell.core.units import DAY_US, MINUTE_US
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.ranking.config import RankingConfig
from handsell.ranking.stage import LocalRanking
from handsell.reranking.config import ExplorationConfig, NewItemsConfig, RerankingConfig
from handsell.reranking.new_items import NewItemReader, NewItems, find_other_arms
from handsell.reranking.rules.shared_counts import SETTLED_S
from handsell.reranking.stage import LocalReranking
from handsell.testing.rule_catalog import CONFIG as RULE_CONFIG
from handsell.testing.rule_catalog import build_stage as build_rule_stage
from handsell.testing.rule_catalog import draw_rule_catalog, write_rule
from handsell.testing.small_catalog import NOW, draw_candidates, draw_requests, draw_snapshot

MORNING = NOW  # midnight UTC


def build_shelf(rng, new=20, items=200):
    shelf = draw_snapshot(rng, items)
    published = np.full(items, NOW - 100 * DAY_US)
    published[-new:] = NOW - DAY_US
    return replace(shelf, published=published)


def build_stage(shelf, share=0.06, impressions=10**6, **of):
    settings = ExplorationConfig(new_items=NewItemsConfig(share=share, impressions=impressions), **of)
    config = Config(name="test", reranking=RerankingConfig(exploration=settings))
    new_items = NewItems(settings.new_items, shelf, config.surface_names)
    eligibility = Eligibility(shelf, (Surface(repeat="allow"), Surface(repeat="allow")))
    return LocalReranking(shelf, eligibility, config, new_items=new_items)


def draw_batch(rng, shelf, rows, old=30, carried=6, new=20):
    """Candidates that are old items, best first, and new ones that only exploration may show."""
    found = draw_candidates(rng, shelf, rows, old + carried)
    first = len(shelf) - new
    item = np.stack(
        [np.concatenate([rng.permutation(first)[:old], first + rng.permutation(new)[:carried]]) for _ in range(rows)]
    )
    return replace(found, item=item.astype(np.int32), carried=carried)


def show(stage, rng, batches, rows=4, step=MINUTE_US, shelf=None):
    """Serve batches over the day; returns the items (N, 10), and the propensities."""
    shelf, slates = shelf or stage.snapshot, []
    for t in range(batches):
        asked = replace(draw_requests(rng, shelf, rows), time=np.full(rows, MORNING + t * step))
        asked = replace(asked, seed=rng.integers(0, 2**63, rows).astype(np.uint64))
        slates.append(run_local(stage.rerank(asked, draw_batch(rng, shelf, rows), 10)))
    return np.concatenate([s.item for s in slates]), np.concatenate([s.propensity for s in slates])


def test_the_share_of_the_day_is_reached_and_not_overshot_at_any_time(rng):
    shelf = build_shelf(rng)
    stage = build_stage(shelf)
    item, propensity = show(stage, rng, 300)
    new = (item >= 180).sum(axis=1)
    assert new.sum() / item.size == pytest.approx(0.06, abs=0.003)
    debt = 0.06 * 10 * np.arange(1, len(new) + 1) - new.cumsum()
    assert np.abs(debt[4:]).max() < 10  # impressions, of 12,000: paced all day long
    assert (propensity[item >= 180] < 1).all() and not (item[:, [0, 1, 2, 3, 5, 6, 7, 8]] >= 180).any()


def test_what_new_items_get_anyway_counts(rng):
    shelf = build_shelf(rng)
    stage = build_stage(shelf)
    for t in range(60):  # two new items at the top of every slate
        asked = replace(draw_requests(rng, shelf, 4), time=np.full(4, MORNING + t * MINUTE_US))
        found = draw_batch(rng, shelf, 4)
        found = replace(found, item=np.roll(found.item, 2, axis=1), carried=4)
        slates = run_local(stage.rerank(asked, found, 10))
    assert (slates.propensity == 1).all()  # nothing is owed


def test_large_batches_are_paced_within_themselves(rng):
    """One batch is the whole day: what new items get anyway, and what is drawn, add up to the share."""
    shelf = build_shelf(rng)
    stage = build_stage(shelf, share=0.15)
    asked = replace(draw_requests(rng, shelf, 400), seed=np.arange(400, dtype=np.uint64))
    found = draw_batch(rng, shelf, 400)
    moved = np.arange(400)[:, None] % 2 == 0  # in every other request a new item comes first
    found = replace(found, item=np.where(moved, np.roll(found.item, 1, axis=1), found.item), carried=5)
    item = run_local(stage.rerank(asked, found, 10)).item
    assert (item >= 180).mean() == pytest.approx(0.15, abs=0.02)


def test_an_item_is_new_until_it_has_its_impressions(rng):
    shelf = build_shelf(rng, new=20)
    stage = build_stage(shelf, share=0.3, impressions=8, positions=(2, 4, 6, 8))
    item, _ = show(stage, rng, 200, rows=1)
    often = np.bincount(item[item != NONE], minlength=200)[180:]
    assert (often == 8).all()
    assert stage.new_items.get_impressions(np.arange(180, 200)[None]).tolist() == [[8] * 20]


def test_no_filter_is_violated_and_nothing_is_counted_for_previews(rng):
    shelf = build_shelf(rng)
    shelf = replace(shelf, available=np.arange(200) % 2 == 0)
    stage = build_stage(shelf, share=0.3)
    item, _ = show(stage.without_counting, rng, 40)
    assert (item[item != NONE] % 2 == 0).all() and (item >= 180).any()
    assert stage.new_items.get_impressions(np.arange(200)[None]).sum() == 0
    show(stage, rng, 2)
    assert stage.new_items.get_impressions(np.arange(200)[None]).sum() > 0


def test_an_arm_has_its_own_share(rng):
    shelf = build_shelf(rng)
    stage = build_stage(shelf, share=0.0)
    stage = replace(stage, new_items=None)

    def vary(share):
        settings = ExplorationConfig(new_items=NewItemsConfig(share=share))
        reranking = stage.config.reranking.model_copy(update={"exploration": settings})
        return stage.config.model_copy(update={"reranking": reranking})

    arm = stage.with_config(vary(0.1), None)
    item, _ = show(arm, rng, 100)
    assert (item >= 180).mean() == pytest.approx(0.1, abs=0.02)
    assert arm.with_config(vary(0.1), None).new_items is arm.new_items
    assert arm.with_config(vary(0.0), None).new_items is None


def test_no_rule_is_violated(rng):
    """Exploration draws at every position, most of the time, among old and new items."""
    shelf = draw_rule_catalog(rng)
    shelf = replace(shelf, published=np.where(np.arange(200) >= 180, NOW - DAY_US, shelf.published))
    text = write_rule("out", "exclude", items="item.explicit") + write_rule(
        "top", "pin", items="item.year == 2003", position=2
    )
    text += write_rule("few", "quota", items="item.brand == 'b1'", per="slate", max_share=0.1)
    settings = ExplorationConfig(share=0.5, positions=tuple(range(1, 11)), new_items=NewItemsConfig(share=0.4))
    config = RULE_CONFIG.model_copy(update={"reranking": RerankingConfig(exploration=settings)})
    stage = build_rule_stage(shelf, text, config)
    stage = replace(stage, new_items=NewItems(settings.new_items, shelf, config.surface_names))
    item, propensity = show(stage, rng, 40)
    assert (item != NONE).all() and not (item % 10 == 0).any()
    assert (item[:, 1] % 20 == 3).all() and (propensity[:, 1] == 1).all()
    assert ((item % 7 == 1).sum(axis=1) <= 1).all()
    assert (item >= 180).mean() > 0.2


def test_impressions_of_other_replicas_count(rng, tmp_path):
    shelf = build_shelf(rng)
    ours = build_stage(shelf, share=0.3, impressions=3).new_items
    ours.counts_own = False
    store = open_sqlite(tmp_path / "log.db")
    ids = shelf.items.ids(np.array([185, 3, 186]))
    items = json.dumps({"item_id": ids, "score": [0] * 3, "propensity": [1] * 3, "sources": [[]] * 3})
    with closing(store.open_writer()) as writer, closing(store.open_reader()) as opened:
        writer.append_slates([make_slate(i, time=MORNING - i * DAY_US, items=items) for i in range(3)]).result()
        reader = NewItemReader(ours.pacing, opened, ("home", "similar"), days=14)
        reader.read(MORNING + MINUTE_US, clock=lambda: 100.0 + SETTLED_S)
    assert ours.get_impressions(np.array([[185, 3, 186, 187]])).tolist() == [[3, 3, 3, 0]]
    assert ours.rules.matches(np.array([[185, 187]]), np.array([MORNING]))[0].tolist() == [[False, True]]


def test_items_without_a_date_are_new_until_somebody_likes_them(rng):
    shelf = draw_snapshot(rng, 6)
    values = np.array([[0, np.nan, 3, 0, 2, 0]], np.float32).T
    published = np.array([ALWAYS, ALWAYS, ALWAYS, NOW - DAY_US, NOW - DAY_US, NOW + 1])
    shelf = replace(shelf, published=published, values=values, value_names=("item_positives_total",))
    items = np.array([[0, 1, 2, 3, 4, 5, NONE]])
    assert is_new(shelf, items, np.array([NOW]), 7).tolist() == [[True, True, False, True, True, False, False]]
    assert count_events(shelf, items)[0, :6].tolist() == [0, 0, 3, 0, 2, 0]


class ByNumber:
    """A ranker that prefers small item numbers."""

    features = ("item",)

    def raw(self, x, trees=0, use=True):
        return np.where(use, 1 - x[..., 0] / 1000, np.nan)

    def calibrate(self, raw):
        return raw

    def score(self, x):
        return self.raw(x)


def test_ranking_carries_the_best_new_items_behind_the_others(rng, monkeypatch):
    shelf = build_shelf(rng)
    settings = ExplorationConfig(new_items=NewItemsConfig(share=0.1, candidates=3))
    config = Config(name="test", reranking=RerankingConfig(exploration=settings))
    monkeypatch.setattr(LocalRanking, "matrix", lambda self, requests, found: found.item[:, :, None].astype(np.float32))
    item = np.stack([np.arange(0, 200, 2), np.r_[np.arange(99), 199]]).astype(np.int32)
    none = np.zeros((2, 100, 0), np.float32)
    found = Candidates(item, np.ones(item.shape, np.float32), none, none, np.ones(item.shape, np.float32), ())
    asked = draw_requests(rng, shelf, 2)
    first_look = RankingConfig(first_look_trees=1, first_look_keeps=20)  # which drops all new items
    both = config.model_copy(update={"ranking": first_look})
    for config_, carried in ((config, 3), (both, 3), (Config(name="test"), 0)):
        ranked = run_local(LocalRanking(ByNumber(), shelf, None, config_).rank(asked, found, 10))
        assert ranked.carried == carried and ranked.item[0, :10].tolist() == list(range(0, 20, 2))
        assert ranked.item[:, 10:].tolist() == ([[180, 182, 184], [199, NONE, NONE]] if carried else [[], []])


def test_a_share_makes_up_for_no_arm_with_another_share(rng, tmp_path, configured):
    """Slates of an arm without new items, and interleaved ones, leave no debt to this share; items count in all."""
    config = configured(
        'name = "shop"\n[reranking.exploration.new_items]\nshare = 0.3\n'
        "[experiments.fair.arms.control]\nshare = 0.5\n[experiments.fair.arms.quiet]\nshare = 0.5\n"
        "reranking = { exploration = { new_items = { share = 0.0 } } }\n"
        '[experiments.other]\nlayer = "b"\n'
        "[experiments.other.arms.control]\nshare = 0.5\n[experiments.other.arms.bold]\nshare = 0.5\n"
        "reranking = { diversity = 0.5 }\n"
    )
    assert find_other_arms(config) == {("fair", "quiet")}
    shelf = build_shelf(rng)
    said = [{}, {"arms": {"fair": "control", "other": "bold"}}, {"arms": {"fair": "quiet"}}, {"interleaved": "fair"}]
    owed = {}
    for others in (frozenset(), find_other_arms(config)):
        ours = build_stage(shelf, share=0.3, impressions=30).new_items
        ours.counts_own = False
        store = open_sqlite(tmp_path / f"{len(others)}.db")
        items = {"item_id": shelf.items.ids(np.array([3, 185])), "score": [0] * 2, "propensity": [1] * 2}
        items |= {"sources": [[]] * 2, "teams": [None] * 2}
        with closing(store.open_writer()) as writer, closing(store.open_reader()) as opened:
            slates = [make_slate(i, time=MORNING + i, items=json.dumps(items | more)) for i, more in enumerate(said)]
            writer.append_slates(slates).result()
            reader = NewItemReader(ours.pacing, opened, ("home", "similar"), 14, others)
            reader.read(MORNING + MINUTE_US, clock=lambda: 100.0 + SETTLED_S)
        owed[len(others)] = float(ours.pacing.shared.counts.shown[0])
        assert ours.get_impressions(np.array([[185]])).tolist() == [[4]]
    assert owed == {0: 8, 1: 4}
