"""Selection of sources: which suit the data, which the fused order needs, and how they weigh the history."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from handsell.config import Config
from handsell.core.batches import Ragged
from handsell.core.units import DAY_US
from handsell.data.interactions import Interactions
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.metrics import Relevant
from handsell.jobs.train.requests import EvaluationRequests
from handsell.jobs.tuning import source_selection
from handsell.jobs.tuning.fusion_weights import LOW_WEIGHT, grow_fusion
from handsell.jobs.tuning.history_settings import TRIED, choose_history_settings, choose_popularity_half_life
from handsell.jobs.tuning.source_selection import (
    SourceChoice,
    SourceSelection,
    find_unsuitable_sources,
    is_required,
    list_selectable_sources,
    select_sources,
    with_sources,
)
from handsell.jobs.tuning.validation_window import ValidationWindow
from handsell.retrieval import registry
from handsell.retrieval.config import FoldInSource, retrievers
from handsell.retrieval.history_weights import HistoryWeights
from handsell.retrieval.models.history import fit_history
from handsell.retrieval.models.popularity import fit_popularity
from handsell.testing.planted_taste import CONFIG, allow_all, build_requests, plant_blocks
from handsell.testing.small_catalog import draw_snapshot

AUTO = 'name = "shop"\n[retrieval]\nsources = "auto"\n'
FOLD_IN = tuple(name for name, section in CONFIG.sections.items() if isinstance(section, FoldInSource))
ROWS = 40


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose fit window has 30 events, of 100 items and 20 users."""
    (tmp_path / "fit").mkdir()
    for part in range(2):
        pq.write_table(pa.table({"user": np.arange(15)}), tmp_path / "fit" / f"part-{part:05d}.parquet")
    monkeypatch.setattr(
        source_selection.CatalogSizes, "load", lambda layout: source_selection.CatalogSizes(users=20, items=100)
    )
    limit(monkeypatch)
    return tmp_path


def limit(monkeypatch, name="", **limits):
    """Remove the size limits of all sources but one."""
    none = {"max_items": None, "max_users": None, "min_events": 0}
    known = {n: replace(plugin, **none) for n, plugin in retrievers().items()}
    if name:
        known[name] = replace(known[name], **limits)
    monkeypatch.setattr(source_selection, "retrievers", lambda: known)


@pytest.mark.parametrize(
    ("limits", "name", "number", "why"),
    [
        ("max_items", "ease", 100, "the catalog has 100 items, it is fitted up to 99"),
        ("max_users", "user_knn", 20, "there are 20 users, it is fitted up to 19"),
        ("min_events", "two_tower", 30, "there are 30 events to learn from, it needs 31"),
    ],
)
def test_a_source_is_unsuitable_by_size(configured, run, monkeypatch, limits, name, number, why):
    config = configured(AUTO + '[surfaces.home]\nrepeat = "allow"')
    limit(monkeypatch, name, **{limits: number})
    assert find_unsuitable_sources(config, run) == {}
    limit(monkeypatch, name, **{limits: number + (1 if limits == "min_events" else -1)})
    assert find_unsuitable_sources(config, run) == {name: why}
    said = configured(AUTO + f'[retrieval.{name}]\nenabled = true\n[surfaces.home]\nrepeat = "allow"')
    assert find_unsuitable_sources(said, run) == {}, "what the config enables never is"


def test_history_is_unsuitable_if_seen_items_are_excluded(configured, run):
    assert list(find_unsuitable_sources(configured(AUTO), run)) == ["history"], (
        "home excludes what was seen, unless it is told to"
    )
    assert find_unsuitable_sources(configured(AUTO + "[retrieval.history]\nenabled = true"), run) == {}


def test_explicit_settings_decide_which_sources_are_selectable(configured):
    usual = list_selectable_sources(configured(AUTO))
    assert "ease" in usual and "als" in usual and not {"sasrec", "svd", "blend"} & set(usual)
    said = list_selectable_sources(
        configured(AUTO + "[retrieval.svd]\nenabled = true\n[retrieval.als]\nenabled = false")
    )
    assert set(said) == {*usual, "svd"} - {"als"}
    only = configured(AUTO + "[retrieval.bought_together]\nenabled = true\n[surfaces.home]\n"
                      '[surfaces.basket]\nonly = ["bought_together", "item_knn"]')  # fmt: skip
    assert set(list_selectable_sources(only)) == {*usual, "bought_together"}


def test_picked_sources_are_enabled_with_their_weights_and_nothing_else_changes(configured):
    config = configured(AUTO + "[retrieval.als]\nreg = 0.5\n[retrieval.item_knn]\nhalf_life_days = 3.0")
    how = {"half_life_days": 365.0, "half_life_events": 5.0, "dislikes": 0.0}
    picked = {
        "ease": SourceChoice("ease", True, "", weight=1.0, history=how),
        "als": SourceChoice("als", True, "", weight=LOW_WEIGHT),
    }
    found = with_sources(config, picked)
    assert found.retrieval.enabled == ("als", "ease") and not found.picks_sources
    assert found.retrieval["ease"] == config.retrieval["ease"].model_copy(
        update={"enabled": True, "weight": 1.0, **how}
    )
    assert (found.retrieval["als"].weight, found.retrieval["als"].reg) == (LOW_WEIGHT, 0.5)
    assert found.retrieval["item_knn"].half_life_days == 3.0 and config.retrieval.enabled != found.retrieval.enabled
    asked = with_sources(config, {"svd": None})
    assert asked.retrieval.enabled == ("svd",) and asked.retrieval["svd"].weight == config.retrieval["svd"].weight


def window() -> ValidationWindow:
    """Ten items are relevant to each request: row r wants 10 r … 10 r + 9."""
    wanted = Ragged.from_rows(list(np.arange(10 * ROWS).reshape(ROWS, 10)))
    return ValidationWindow(
        EvaluationRequests(None, Relevant(wanted, Ragged(np.ones(10 * ROWS, np.float32), wanted.offsets))), None
    )


def lists_of(hits: list[int] | range, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A source that returns these places (0 to 9) of the ten wanted items to each request, and no other item."""
    items = (first + 10 * np.arange(ROWS)[:, None] + np.asarray(hits)).astype(np.int32)
    return items, -np.tile(np.arange(items.shape[1], dtype=np.float32), (ROWS, 1))


NOISE = lists_of(range(10), first=10_000)


def grown(lists, must=()):
    judge = window()
    fusion = grow_fusion(lists, {name: judge.ndcg(found[0]) for name, found in lists.items()}, judge, must)
    return fusion.weights, fusion.ndcg, fusion.gain


def test_a_complementary_source_is_added_and_a_useless_one_is_left_out():
    lists = {"als": lists_of([0, 1, 2, 3, 4]), "ease": lists_of([5, 6, 7]), "duplicate": lists_of([0, 1]), "bad": NOISE}
    weights, fused, gain = grown(lists)
    assert weights == {"als": 1.0, "ease": 1.0} and list(gain) == ["als", "ease"]
    judge = window()
    assert gain["als"] == pytest.approx(judge.ndcg(lists["als"][0])) and gain["ease"] > 0.1
    assert fused == pytest.approx(gain["als"] + gain["ease"]) == judge.ndcg(lists_of(range(8))[0])


def test_a_required_source_that_adds_nothing_gets_the_low_weight():
    lists = {"als": lists_of(range(10)), "popularity": NOISE, "bad": NOISE}
    weights, fused, gain = grown(lists, ("popularity",))
    assert weights == {"als": 1.0, "popularity": LOW_WEIGHT} and "popularity" not in gain
    assert fused == pytest.approx(1.0), "beside, it does not come between"
    assert grown({"als": lists_of([0]), "popularity": lists_of([1])}, ("popularity",))[0]["popularity"] == 1.0


def test_at_most_eight_sources_are_picked():
    """Ten sources find one item each; two required ones find nothing."""
    lists = {f"s{i}": lists_of([i]) for i in range(10)} | {"popularity": NOISE, "content": NOISE}
    weights, _, gain = grown(lists, ("popularity", "content"))
    assert len(weights) == 8 and len(gain) == 6
    assert weights["popularity"] == weights["content"] == LOW_WEIGHT


def test_eight_required_sources_exclude_a_better_one():
    lists = {"best": lists_of(range(10))} | {f"m{i}": NOISE for i in range(8)}
    weights, _, _ = grown(lists, tuple(f"m{i}" for i in range(8)))
    assert sorted(weights) == [f"m{i}" for i in range(8)]


def test_a_source_that_a_surface_names_is_required(configured):
    config = configured(AUTO + '[surfaces.home]\n[surfaces.extra]\nonly = ["item_knn"]')
    assert (
        is_required(config, "item_knn")
        and not is_required(config, "als")
        and "item_knn" in list_selectable_sources(config)
    )


def test_the_selection_as_a_sentence_and_in_the_report():
    rows = (
        SourceChoice("ease", True, "", 0.2),
        SourceChoice("als", False, "", 0.1),
        SourceChoice("user_knn", False, "too many"),
    )
    choice = SourceSelection(rows, 0.25, 1234)
    assert str(choice) == "ease; without als; fused NDCG@10 0.2500 on 1,234 validation requests"
    assert choice.as_dict()["window"] == "validation" and choice.as_dict()["sources"][2]["why"] == "too many"


@pytest.fixture
def plant(run, rng, monkeypatch, configured):
    """Function from dislikes to a run: histories of eight likes of one block, then four of the wanted one."""
    events, content = plant_blocks(rng)

    def fit(config, interactions, models):
        content.save(models / "content")
        for name in config.retrieval.enabled:
            registry.fit(name, events, config.retrieval, content).save(models / "retrievers" / name)

    def planted(dislikes: int):
        likes = [*((4 * i, 1.0) for i in range(8)), *((1 + 4 * i, 1.0) for i in range(4))]
        past = [*likes[:8], *((1 + 4 * i, -1.0) for i in range(4, 4 + dislikes)), *likes[8:]]
        asked = build_requests(*([(item // 4 * 4 + (item + b) % 4, weight) for item, weight in past] for b in range(4)))
        wanted = Ragged.from_rows([(b + 1) % 4 + 4 * np.arange(18) for b in range(4)])
        judged = EvaluationRequests(asked, Relevant(wanted, Ragged(np.ones(4 * 18, np.float32), wanted.offsets)))
        window = ValidationWindow(judged, Eligibility.of(shelf, configured(AUTO)))
        monkeypatch.setattr(ValidationWindow, "load", lambda config, run, otherwise: window)
        return run

    monkeypatch.setattr(source_selection, "run_tasks", lambda function, tasks: [function(*task) for task in tasks])
    monkeypatch.setattr(source_selection, "fit_retrievers", fit)
    shelf = draw_snapshot(rng, items=80)
    limit(monkeypatch, "two_tower", min_events=31)
    return planted


SMALL = (
    f"{AUTO}[retrieval.als]\nembedding_size = 8\nhalf_life_events = 20.0\n[retrieval.ease]\nenabled = true\n"
    "[retrieval.popularity]\nhalf_life_days = 7.0"
)


@pytest.mark.parametrize("dislikes", [0, 4])
def test_sources_and_their_history_settings_are_chosen_on_the_window(
    configured, plant, tmp_path, dislikes, monkeypatch
):
    monkeypatch.setitem(TRIED, "half_life_events", (20.0, 10.0, 5.0, 2.0))  # with 1.0, no dislike would matter here
    config, choice = select_sources(configured(SMALL), plant(dislikes), tmp_path / "holdout")
    told = {source.name: source for source in choice.sources}
    assert set(told) == set(list_selectable_sources(configured(SMALL))) and choice.fused > 0.9
    assert config.retrieval.enabled == tuple(n for n in retrievers() if n in choice.picked)
    assert told["popularity"].weight == LOW_WEIGHT and "users without a history" in told["popularity"].why
    assert {"ease", "content"} <= set(choice.picked), "what the config enables, and what finds new items, stays"
    assert told["als"].history["half_life_events"] == 20.0, "what the config says is not chosen again"
    assert "31" in told["two_tower"].why and told["two_tower"].ndcg is None
    assert told["ease"].history["dislikes"] == (0.0 if dislikes else 1.0), "1: nobody dislikes anything"
    for name in set(FOLD_IN) & set(choice.picked) - {"als"}:
        section, history = config.retrieval[name], told[name].history
        assert history["half_life_events"] in (5.0, 2.0)
        assert history == {key: getattr(section, key) for key in section.HISTORY_KEYS}
        model = registry.load(name, tmp_path / "holdout" / "retrievers" / name)
        weights = (
            HistoryWeights.from_config(model.config) if name == "user_knn" else getattr(model, "encoder", model).weights
        )
        assert weights == HistoryWeights.from_config(section)


@pytest.mark.parametrize("name", FOLD_IN)
def test_changed_history_weights_equal_a_fit_with_them(rng, tmp_path, name):
    events, content = plant_blocks(rng)
    section = CONFIG[name]
    settings = {"half_life_days": 0.01, "half_life_events": 1.5, "dislikes": 0.25, "weight_exponent": 0.5,
                "repeat_exponent": 0.5, "popularity_exponent": 0.7}  # fmt: skip
    settings = {key: settings[key] for key in section.HISTORY_KEYS}
    other = CONFIG.with_sections({name: section.model_copy(update=settings)})
    model, expected = (registry.fit(name, events, config, content) for config in (CONFIG, other))
    model.with_history_weights(**settings).save(tmp_path)
    asked = build_requests([(0, 1.0), (4, 2.0), (1, 1.0), (5, -1.0), (8, 1.0)], [(2, 1.0), (3, 1.0)], [])
    want, plain = (m.retrieve(asked, 20, allow_all(asked, 80)) for m in (expected, model))
    for found in (model.with_history_weights(**settings), registry.load(name, tmp_path)):
        for got, wanted in zip(found.retrieve(asked, 20, allow_all(asked, 80)), want, strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert not np.array_equal(plain[1], want[1], equal_nan=True), "the settings matter"


def test_in_sessions_the_latest_item_comes_before_frequent_ones(rng):
    """The requests want item 8, which was liked once, after item 4, which was liked twice."""
    events, _ = plant_blocks(rng)
    asked = build_requests([(0, 1.0)] * 5 + [(4, 1.0)] * 2 + [(8, 1.0)])
    wants_the_latest = SimpleNamespace(
        model_ndcg=lambda model: float(model.retrieve(asked, 10, allow_all(asked, 80))[0][0, 0] == 8),
        evaluation=SimpleNamespace(requests=asked),
    )
    section = CONFIG["history"].model_copy(update={"repeat_exponent": 0.0, "popularity_exponent": 0.0})
    model, how = choose_history_settings(fit_history(events, section), section, wants_the_latest)
    assert wants_the_latest.model_ndcg(model) == 1.0 and how["half_life_events"] == 1.0


def test_the_popularity_half_life_follows_the_log():
    """Item 0 was liked by many a year ago, item 1 by two yesterday; requests want item 0."""
    day = np.array([0.0] * 10 + [365.0] * 2)
    events = Interactions(
        np.arange(12, dtype=np.int32), np.array([0] * 10 + [1] * 2, np.int32), np.zeros(12, np.int8),
        (day * DAY_US).astype(np.int64), np.ones(12, np.float32), 12, 2,
    )  # fmt: skip
    wants_the_first = SimpleNamespace(
        model_ndcg=lambda model: float(model.retrieve(build_requests([]), 10, np.ones((1, 2), bool))[0][0, 0] == 0)
    )
    config = Config(name="shop")
    model, how = choose_popularity_half_life(
        fit_popularity(events, config.retrieval["popularity"]), events, config, wants_the_first
    )
    assert how["half_life_days"] > 100 and model.popularity[0] > model.popularity[1]
