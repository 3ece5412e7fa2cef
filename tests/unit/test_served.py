"""Evaluation as served: planted lists get their scores, and no retriever depends on the time since the last event."""

import json
from dataclasses import replace

import numpy as np
import pytest

from handsell.core.batches import NONE, Ragged
from handsell.core.funnel import Funnel, build_slates_in_order
from handsell.core.units import DAY_US
from handsell.data.splits import WindowRequests
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.evaluation import replay
from handsell.evaluation.metrics import Relevant, gains, ndcg, recall
from handsell.evaluation.served import (
    PAUSES,
    RequestScores,
    describe_pauses,
    describe_served,
    loss_by_pause,
    score_models,
)
from handsell.jobs.train import requests as train_requests
from handsell.retrieval import registry
from handsell.retrieval.config import RetrievalConfig, retrievers
from handsell.retrieval.stage import LocalCandidates
from handsell.testing.planted_taste import CONFIG, allow_all, build_requests, plant_blocks
from handsell.testing.small_catalog import draw_requests, draw_snapshot

USERS = 200
QUICK = CONFIG.model_copy(
    update={name: CONFIG[name].model_copy(update={"epochs": 2}) for name in ("two_tower", "sasrec")}
)
KINDS = {"als": "retriever", "blend": "blend", "ranker": "ranker", "funnel": "funnel"}


def scored(rng: np.random.Generator, **means: float) -> RequestScores:
    """Models with exactly these mean NDCGs; those that are not stages or retrievers are baselines."""
    noise = {name: rng.normal(0, 0.02, USERS) for name in means}
    values = {name: m + noise[name] - noise[name].mean() for name, m in means.items()}
    kinds = {name: KINDS.get(name, "baseline") for name in values}
    return RequestScores(np.arange(USERS, dtype=np.int32), values, {n: v / 2 for n, v in values.items()}, kinds)


@pytest.mark.parametrize(
    ("funnel", "relation", "outcome"),
    [
        (0.30, "better than", "beats"),
        (0.20, "not significantly different from", "undecided"),
        (0.15, "worse than", "loses"),
    ],
)
def test_the_sentence_compares_the_slates_with_the_best_baseline(rng, funnel, relation, outcome):
    asked = scored(rng, als=0.5, funnel=funnel, **{"baseline: EASE": 0.2, "baseline: popularity": 0.1})
    found = describe_served(asked, "all at noon")
    assert found["best_baseline"] == "baseline: EASE", "a retriever is none, however good"
    assert found["to_best_baseline"]["outcome"] == outcome
    assert f"(all at noon), the slates reach NDCG@10 {funnel:.4f}" in found["sentence"]
    end = f": {relation} EASE, the best simple baseline (0.2000), {funnel / 0.2:.2f} times its value."
    assert found["sentence"].endswith(end)


def test_every_model_has_its_interval(rng):
    asked = scored(rng, als=0.5, funnel=0.4, EASE=0.2)
    found = json.loads(json.dumps(describe_served(asked, "now")))
    assert (found["as_of"], found["requests"]) == ("now", USERS)
    for name, row in found["models"].items():
        assert row["kind"] == asked.kinds[name] and row["low"] < row["ndcg"] < row["high"]
        assert row["ndcg"] == pytest.approx(asked.ndcg[name].mean())
        assert row["recall"] == pytest.approx(asked.recall[name].mean())


def test_without_baselines_there_is_no_comparison(rng):
    found = describe_served(scored(rng, als=0.5, funnel=0.4), "now")
    assert found["best_baseline"] is None and found["to_best_baseline"] is None
    assert found["sentence"].endswith(").") and "baseline" not in found["sentence"]


def after_pauses(rng, late: dict[str, float]) -> dict[str, RequestScores]:
    """The same at every pause, times `late` from 30 days on."""
    soon = scored(rng, als=0.3, ranker=0.5, funnel=0.4)
    lost = replace(soon, ndcg={name: values * late.get(name, 1.0) for name, values in soon.ndcg.items()})
    return {name: lost if pause_us >= 30 * DAY_US else soon for name, pause_us in PAUSES.items()}


def test_models_that_get_worse_with_time_are_named_the_worst_first(rng):
    found = describe_pauses(after_pauses(rng, {"funnel": 0.8, "als": 0.5}))
    (sentence,) = found["sentences"]
    assert sentence.startswith("At 30 days after the last event instead of 1 minute, NDCG@10 changes: als -50.0%")
    assert ", slates -20.0% (0.4" in sentence
    assert found["loss"]["funnel"]["relative"] == pytest.approx(-0.2)
    assert found["loss"]["ranker"]["relative"] == 0
    assert [pause["seconds"] for pause in found["pauses"]] == [60, 86_400, 604_800, 2_592_000, 15_552_000]
    before, after = found["models"]["funnel"][:3], found["models"]["funnel"][3:]
    assert len(set(before)) == len(set(after)) == 1 and after[0] == pytest.approx(0.8 * before[0])


@pytest.mark.parametrize("late", [{}, {"funnel": 0.985}, {"funnel": 1.3}], ids=["same", "hardly", "better"])
def test_a_small_loss_or_a_gain_is_reported_as_no_loss(rng, late):
    (sentence,) = describe_pauses(after_pauses(rng, late))["sentences"]
    assert sentence.endswith("no model loses more than 2% of NDCG@10.")


def test_an_undecided_loss_is_not_reported(rng):
    by_pause = after_pauses(rng, {})
    noisy = by_pause["30 days"].ndcg["funnel"] * 0.95 + rng.normal(0, 1, USERS)
    noisy -= noisy.mean() - 0.95 * by_pause["1 minute"].ndcg["funnel"].mean()
    by_pause["30 days"] = replace(by_pause["30 days"], ndcg={**by_pause["30 days"].ndcg, "funnel": noisy})
    assert loss_by_pause(by_pause)["funnel"].relative == pytest.approx(-0.05)
    assert describe_pauses(by_pause)["sentences"][0].endswith("no model loses more than 2% of NDCG@10.")


class Fixed:
    """Returns the same items for every user, except those that are not eligible."""

    def __init__(self, name: str, items: list[int]):
        self.name, self.items = name, items

    def retrieve(self, asked, k, eligible):
        out = np.full((len(asked), k), NONE, np.int32)
        for row, may in zip(out, eligible, strict=True):
            kept = [i for i in self.items if may[i]][:k]
            row[: len(kept)] = kept
        return out, np.where(out == NONE, np.nan, -np.arange(k, dtype=np.float32))


class Rolled:
    """Ranks and re-ranks by putting the last candidate first."""

    async def rank(self, asked, candidates, k):
        width = candidates.item.shape[1]
        return candidates.reorder(np.roll(np.arange(width), 1)[None, :k] + np.zeros((len(asked), 1), int))

    async def rerank(self, asked, candidates, n):
        return build_slates_in_order(await self.rank(asked, candidates, n), n)


@pytest.mark.parametrize("at_once", [256, 3])
def test_each_stage_is_scored_by_its_own_lists(rng, monkeypatch, at_once):
    shelf = draw_snapshot(rng, items=30)
    shelf = replace(shelf, published=np.zeros(30, np.int64))
    monkeypatch.setattr(replay, "MASK_CELLS", 30 * at_once)
    asked = replace(draw_requests(rng, shelf, rows=8, seen=5), exclude=Ragged.from_rows([[0]] * 8))
    relevant = Relevant(Ragged.from_rows([[1, 2]] * 4 + [[7]] * 4), Ragged.from_rows([[1, 3]] * 4 + [[2]] * 4, "f4"))
    eligibility = Eligibility(shelf, (Surface(repeat="allow"),))
    retrievers = {"popularity": Fixed("popularity", [0, 1, 5]), "als": Fixed("als", [0, 2, 1, 9, 7])}
    stage = LocalCandidates(retrievers, eligibility, RetrievalConfig())
    others = {"baseline": np.array([[2, 1] + [NONE] * 8] * 4 + [[7] + [NONE] * 9] * 4)}
    found = score_models(asked, relevant, Funnel(stage, Rolled(), Rolled()), retrievers, eligibility, others)
    lists = {
        "popularity": [1, 5], "als": [2, 1, 9, 7],
        "blend": [1, 2, 9, 7, 5],  # 1 has two sources; popularity weighs half
        "ranker": [5, 1, 2, 9, 7], "funnel": [7, 5, 1, 2, 9],
    }  # fmt: skip
    for name, items in lists.items():
        gain = gains(np.array([items] * 8), relevant)
        np.testing.assert_allclose(found.ndcg[name], ndcg(gain, relevant, 10), err_msg=name)
        np.testing.assert_allclose(found.recall[name], recall(gain, relevant, 10), err_msg=name)
    np.testing.assert_allclose(found.ndcg["baseline"], 1)
    assert found.kinds == {**KINDS, "popularity": "retriever", "baseline": "baseline"}
    np.testing.assert_array_equal(found.user, asked.user)


@pytest.fixture(scope="module")
def models():
    events, content = plant_blocks(np.random.default_rng(0))
    return {name: registry.fit(name, events, QUICK, content) for name in retrievers()}


@pytest.mark.parametrize("days", [1, 30, 180])
@pytest.mark.parametrize("name", retrievers())
def test_no_retriever_depends_on_the_time_since_the_last_event(models, name, days):
    """The history is moved, not the request, since the time of day may matter."""
    asked = build_requests([(0, 1.0), (4, 2.0), (1, -1.0), (8, 1.0)], [(2, 1.0), (6, 1.0), (3, 1.0)], [(5, 2.0)], [])
    asked.history.time[:, :-2] -= 2 * DAY_US  # so that events have ages, and sessions end
    soon = models[name].retrieve(asked, 30, allow_all(asked, 80))
    asked.history.time[asked.history.item != NONE] -= days * DAY_US
    late = models[name].retrieve(asked, 30, allow_all(asked, 80))
    np.testing.assert_array_equal(late[0], soon[0])
    np.testing.assert_array_equal(late[1], soon[1])
    assert (soon[0][0] != NONE).any()


def test_the_relevant_items_are_the_same_after_every_pause(monkeypatch):
    """After a pause, seen items may be eligible again: this changes what may be shown, not what is relevant."""
    one = build_requests([(1, 1.0)])

    def loaded(config, run, window, rows, shelf, away=None):
        acted = Ragged.from_rows([[3, 4]] if away is None else [[3, 4, 5]])
        gain = Ragged(np.ones(len(acted.values), np.float32), acted.offsets)
        nothing = (Ragged.empty(1, kind) for kind in (np.int32, np.int16, np.float32))
        asked = one if away is None else replace(one, time=one.time + away)
        return asked, WindowRequests(asked.user, asked.time, np.full(1, -1), acted, gain, *nothing)

    monkeypatch.setattr(train_requests, "load_requests", loaded)
    monkeypatch.setattr(train_requests, "list_chunks", lambda run, window: [slice(0, 1)])
    for away in (None, DAY_US):
        evaluation = train_requests.load_evaluation_requests(None, None, "served", None, away)
        assert evaluation.relevant.item.values.tolist() == [3, 4]
        assert evaluation.requests.time.tolist() == (one.time + (away or 0)).tolist()
