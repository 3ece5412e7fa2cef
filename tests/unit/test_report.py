"""A replay of planted models, and the report, which must show what was planted."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from handsell.catalog.snapshot import ALWAYS, NEVER, Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import Candidates, History, Profile, Ragged, Requests, Seen
from handsell.core.errors import TrainingError
from handsell.core.funnel import Funnel, build_slates_in_order
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.intervals import compare
from handsell.evaluation.metrics import Relevant
from handsell.evaluation.replay import recommend_slates, replay_requests
from handsell.evaluation.report.page import render
from handsell.evaluation.report.report import ReportContext, build_report, write_report
from handsell.evaluation.report.served_plots import move_apart
from handsell.evaluation.served import PAUSES, RequestScores, describe_pauses, describe_served
from handsell.jobs.tuning.source_selection import SourceChoice, SourceSelection
from handsell.jobs.tuning.strength_selection import pick_strength
from handsell.jobs.tuning.trials import Trial
from handsell.jobs.tuning.tuned_source import TunedSource
from handsell.retrieval.config import RetrievalConfig
from handsell.retrieval.stage import LocalCandidates

ITEMS, REQUESTS, COLD = 120, 150, 100  # items from COLD on had no event
TUNED = TunedSource(
    "als",
    (Trial({"reg": 0.5}, 0.25, 1.0), Trial({"reg": -1.0}, None, 0.0, "reg < 0"), Trial({"reg": 0.125}, 0.375, 1.0)),
    combinations=7, requests=40, seconds=3.0,
)  # fmt: skip

SERVED = {
    "funnel": 0.5, "ranker": 0.4375, "blend": 0.375, "als": 0.3125, "content": 0.125, "baseline: popularity": 0.0625,
    "baseline: EASE": 0.25,
}  # fmt: skip
CHOICE = SourceSelection(
    (
        SourceChoice("ease", False, "the catalog has 60,000 items, it is fitted up to 15,000"),
        SourceChoice("als", True, "the best source alone", 0.3125, 1.0, {"half_life_events": 10.0, "dislikes": 0.0}),
        SourceChoice("content", True, "adds 0.0100 to the fused order", 0.125, 0.1),
    ),
    fused=0.3225, requests=80,
)  # fmt: skip


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    rng = np.random.default_rng(0)
    return Snapshot(
        version=1, as_of=0, items=Vocabulary.of(map(str, range(ITEMS))), creators=Vocabulary.of(["c"]),
        tags=Vocabulary.of(map(str, range(8))), creator=np.zeros(ITEMS, np.int32),
        item_tags=Ragged.from_rows([rng.choice(8, 2, replace=False) for _ in range(ITEMS)]),
        published=np.full(ITEMS, ALWAYS), expires=np.full(ITEMS, NEVER), available=np.ones(ITEMS, bool),
        values=np.zeros((ITEMS, 0), np.float32), value_names=(), metadata=pa.table({}),
    )  # fmt: skip


def make_requests(count: int = REQUESTS) -> Requests:
    history = History.empty(count, 6)
    for b in range(count):
        history.item[b, 6 - b % 3 * 3 :] = 1  # nothing, three, or six events
    empty = np.zeros((count, 0))
    return Requests(
        user=np.arange(count, dtype=np.int32), time=np.full(count, 10, np.int64), surface=np.zeros(count, np.int8),
        history=history, profile=Profile(empty, empty, empty, empty, empty),
        seen=Seen(Ragged.empty(count), Ragged.empty(count, np.int64)), exclude=Ragged.empty(count),
    )  # fmt: skip


def make_relevant(count: int = REQUESTS) -> Relevant:
    rng = np.random.default_rng(1)
    rows = [rng.choice(ITEMS, 4, replace=False) for _ in range(count)]
    return Relevant(Ragged.from_rows(rows), Ragged.from_rows([[1.0, 2.0, 3.0, 1.0]] * count, np.float32))


@dataclass
class Planted:
    """Scores items with the truth plus noise; `user` identifies the request."""

    relevant: Relevant
    noise: float
    items: np.ndarray
    fails: bool = False

    def _scores(self, requests: Requests) -> np.ndarray:
        scores = np.zeros((len(requests), ITEMS))
        for b, user in enumerate(requests.user):
            scores[b] = np.random.default_rng(int(user)).normal(0, self.noise, ITEMS)
            scores[b, self.relevant.item.row(user)] += self.relevant.grade.row(user)
        return scores

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = np.where(eligible & np.isin(np.arange(ITEMS), self.items), self._scores(requests), -np.inf)
        order = np.argsort(-scores, axis=1)[:, :k].astype(np.int32)
        kept = np.take_along_axis(scores, order, 1)
        return np.where(np.isfinite(kept), order, -1), np.where(np.isfinite(kept), kept, np.nan).astype(np.float32)

    async def rank(self, requests: Requests, candidates: Candidates, k: int) -> Candidates:
        if self.fails:
            raise RuntimeError("planted failure")
        scores = np.take_along_axis(self._scores(requests), np.maximum(candidates.item, 0), 1)
        scores = np.where(candidates.item >= 0, scores, -np.inf)
        order = np.argsort(-scores, axis=1)[:, :k]
        return replace(candidates, score=scores.astype(np.float32)).reorder(order)


class Order:
    async def rerank(self, requests: Requests, candidates: Candidates, n: int):
        return build_slates_in_order(candidates, n)


def run(snapshot: Snapshot, ranker_noise: float = 0.3, fails: bool = False, count: int = REQUESTS, **options):
    relevant, warm, everything = make_relevant(count), np.arange(COLD), np.arange(ITEMS)
    retrievers = {
        "popularity": Planted(relevant, 40.0, warm),
        "als": Planted(relevant, 1.2, warm),
        "content": Planted(relevant, 4.0, everything),
    }
    eligibility = Eligibility(snapshot, (Surface(),))
    config = RetrievalConfig(candidates=ITEMS)
    funnel = Funnel(
        LocalCandidates(retrievers, eligibility, config),
        Planted(relevant, ranker_noise, everything, fails),
        Order(),
        ITEMS,
    )
    popularity = np.r_[np.arange(COLD, 0, -1), np.zeros(ITEMS - COLD, int)]
    return replay_requests(
        make_requests(count), relevant, funnel=funnel, retrievers=retrievers, eligibility=eligibility,
        popularity=popularity, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def replay(snapshot):
    relevant = make_relevant()
    truth = Planted(relevant, 0.0, np.arange(ITEMS))
    return run(snapshot, oracle=lambda r: truth.retrieve(r, 10, np.ones((len(r), ITEMS), bool))[0])


@pytest.fixture(scope="module")
def report(replay):
    about = ReportContext(
        config="planted", created_us=1_750_000_000_000_000, data={"events": 12_345, "ordered": True},
        windows={"test": (1_749_000_000_000_000, 1_750_000_000_000_000)},
        importance={"src_als_z": 3.0, "hour_sin": 1.0},
        seconds={"als": 1.5}, libraries={"numpy": "2"}, tuning={"als": TUNED.as_dict()},
    )  # fmt: skip
    return build_report(replay, about)


def make_asked(scores: dict[str, float], fade: float = 1.0) -> RequestScores:
    """Twenty users for whom every model scores the same; the ranker's scores are multiplied by `fade`."""
    kinds = {name: name if name in ("funnel", "ranker", "blend") else "retriever" for name in scores}
    kinds |= dict.fromkeys((name for name in scores if name.startswith("baseline: ")), "baseline")
    ndcg = {name: np.full(20, value * (fade if name == "ranker" else 1)) for name, value in scores.items()}
    return RequestScores(
        np.arange(20, dtype=np.int32), ndcg, {name: values / 2 for name, values in ndcg.items()}, kinds
    )


def with_served(report):
    """The report with planted sections of the served evaluation."""
    pauses = dict(zip(PAUSES, (1.0, 1.0, 0.75, 0.5, 0.25), strict=True))
    models = {name: value for name, value in SERVED.items() if "baseline" not in name}
    base, users = np.full(300, 0.5), np.arange(300)
    changes = {s: compare(base * (1 - 0.04 * s), base, users) for s in (1.0, 0.5, 0.0)}
    return {
        **deepcopy(report),
        "served": describe_served(make_asked(SERVED), "all users at noon"),
        "by_time_away": describe_pauses({name: make_asked(models, fade) for name, fade in pauses.items()}),
        "choices": {"sources": CHOICE.as_dict(), "strength": pick_strength(changes, 300, 0.03).as_dict()},
    }


@pytest.fixture(scope="module")
def served_report(report):
    return with_served(report)


@pytest.fixture(scope="module")
def page(served_report) -> str:
    return render(served_report)


def table_rows(page: str, heading: str) -> list[list[str]]:
    """Cells of the first table after a heading, without its header row."""
    table = page[page.index(f"<h2>{heading}</h2>") :].split("</table>")[0]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)]
    return [[re.sub("<.*?>", " ", cell).strip() for cell in row] for row in rows[1:]]


def test_every_model_is_scored_on_the_same_requests(replay):
    assert set(replay.models) == {"popularity", "als", "content", "blend", "ranker", "funnel", "oracle"}
    assert all(len(v) == REQUESTS for c in replay.models.values() for v in c.scores.values())
    assert "recall@1000" not in replay.models["funnel"].scores
    np.testing.assert_allclose(replay.models["oracle"].scores["ndcg@10"], 1.0)


def test_the_chunk_size_does_not_change_scores(snapshot, replay):
    again = run(snapshot, chunk=7)
    assert again.sources == replay.sources and again.relevant == replay.relevant
    for name, model in again.models.items():
        np.testing.assert_array_equal(model.items, replay.models[name].items)
        for metric, values in model.scores.items():
            np.testing.assert_allclose(values, replay.models[name].scores[metric], err_msg=f"{name} {metric}")


def test_without_reranking_the_funnel_equals_the_ranker(replay):
    np.testing.assert_array_equal(replay.models["funnel"].items, replay.models["ranker"].items)


def test_recall_of_warm_and_of_cold_items(replay):
    als, content = replay.models["als"].scores, replay.models["content"].scores
    assert np.nanmax(als["cold_item_recall@1000"]) == 0 and np.nanmin(content["cold_item_recall@1000"]) == 1
    assert replay.cold_relevant == (make_relevant().item.values >= COLD).sum()


def test_unique_hits_are_items_that_only_one_source_returned(replay):
    """The candidates are the whole catalog; only content returns cold items, all three return the warm ones."""
    content, als = replay.sources["content"], replay.sources["als"]
    assert content.hits == replay.relevant and content.unique_hits == replay.cold_relevant > 0
    assert als.hits == replay.relevant - replay.cold_relevant and als.unique_hits == 0
    assert content.unique_share == content.unique_hits / replay.relevant


def test_the_report_shows_what_was_planted(report):
    assert report["best_retriever"] == "als"
    assert report["funnel"]["als"]["outcome"] == "beats" and report["funnel"]["oracle"]["outcome"] == "loses"
    assert "beats popularity and every single retriever" in report["summary"]
    assert len(report["outcomes"]["beats"]) == 3 and not report["outcomes"]["loses"]
    assert list(report["models"])[:4] == ["oracle", "funnel", "ranker", "blend"]
    assert report["models"]["als"]["to_popularity"]["outcome"] == "beats"
    assert report["models"]["als"]["to_best_retriever"] is None
    assert report["feature_importance"][0] == {"feature": "src_als_z", "share": 0.75}
    assert [s["requests"] for s in report["segments"].values()] == [50, 50, 50]
    assert report["windows"]["test"]["until"] == "2025-06-15T15:06:40Z"


def test_a_bad_ranker_is_reported(snapshot):
    report = build_report(run(snapshot, ranker_noise=50.0), ReportContext("planted", 0))
    assert report["funnel"]["als"]["outcome"] == "loses" and "loses to" in report["summary"]
    assert any("before re-ranking" in reason for reason in report["reasons"])
    assert any("content or the user's own history" in reason for reason in report["reasons"])
    assert any(reason.startswith("Ranking is worse than") for reason in report["reasons"])


def test_a_failing_ranker_is_reported(snapshot):
    replay = run(snapshot, fails=True)
    assert replay.degraded == {"ranking": REQUESTS}
    report = build_report(replay, ReportContext("planted", 0))
    assert any("degraded funnel" in reason for reason in report["reasons"])


def test_the_report_is_json_without_nan_and_a_page_that_needs_no_network(report, tmp_path: Path):
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == report
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page) and "<script" not in page
    assert page.count("data:image/svg+xml") == 7
    assert report["summary"] in page and "src_als_z" in page and "12\u2009345" in page


def test_the_served_evaluation_comes_first(served_report, page):
    assert re.findall(r"<h2>(.*?)</h2>", page)[:4] == [
        "Evaluated as served", "By time since the last event", "What training picked", "Test window",
    ]  # fmt: skip
    assert page.index(served_report["served"]["sentence"]) < page.index(served_report["summary"])
    rows = table_rows(page, "Evaluated as served")
    assert [row[0].split(" retriever")[0] for row in rows] == [
        "funnel", "ranker", "blend", "als", "content", "baseline: EASE best baseline", "baseline: popularity",
    ]  # fmt: skip
    assert rows[0][1:] == ["0.5000", "0.5000 to 0.5000", "0.2500"] and rows[5][1] == "0.2500"
    assert '<tr class="funnel"><td>funnel</td>' in page and '<tr class="baseline rival"><td>baseline: EASE<' in page


def test_scores_by_time_away_are_shown_by_pause(served_report, page):
    rows = table_rows(page, "By time since the last event")
    assert [row[0] for row in rows] == ["funnel", "ranker", "blend", "als", "content"]
    assert rows[1][1:] == ["0.4375", "0.4375", "0.3281", "0.2188", "0.1094", "−50.0 %"]
    assert rows[0][1:] == ["0.5000"] * 5 + ["+0.0 %"]
    (sentence,) = served_report["by_time_away"]["sentences"]
    assert "ranker -50.0% (0.4375 to 0.2188)" in sentence and f"<li>{sentence}</li>" in page


def test_what_training_picked_is_shown_with_the_reason(page):
    assert table_rows(page, "What training picked") == [
        ["als", "picked", "0.3125", "1", "events count half after 10 later likes, dislikes do not count",
         "the best source alone"],
        ["content", "picked", "0.1250", "0.1", "–", "adds 0.0100 to the fused order"],
        ["ease", "left out", "–", "–", "–", "the catalog has 60,000 items, it is fitted up to 15,000"],
    ]  # fmt: skip
    assert "reaches NDCG@10 0.3225 on 80 validation requests" in page
    assert "Strength 0.5 of re-ranking: -2.0% NDCG@10" in page


def test_figures_of_the_served_sections_need_no_network(report, page):
    without = render(report)
    assert "<h2>Test window" in without and "Evaluated as served" not in without
    assert page.count("data:image/svg+xml") == without.count("data:image/svg+xml") + 3
    assert not re.search(r'(src|href)="(?!data:)', page) and "<script" not in page


@pytest.mark.parametrize(
    "absent", [("served",), ("by_time_away",), ("choices",), ("served", "by_time_away", "choices")]
)
def test_a_section_without_content_is_left_out(served_report, absent):
    headings = {"served": "Evaluated as served", "by_time_away": "By time since the last event",
                "choices": "What training picked"}  # fmt: skip
    empty = served_report | {name: {} for name in absent}
    missing = {name: section for name, section in served_report.items() if name not in absent}
    page = render(missing if len(absent) == 3 else empty)  # older bundles have none of them
    assert all((f"<h2>{heading}<" in page) == (name not in absent) for name, heading in headings.items())
    assert page.count("<div") == page.count("</div>") and page.count("<section") == page.count("</section>")


def test_choices_that_were_configured_are_not_called_picked(served_report):
    assert "What training picked" not in render(served_report | {"choices": {"sources": None, "strength": None}})
    only_sources = render(served_report | {"choices": {**served_report["choices"], "strength": None}})
    assert "<td>als</td><td" in only_sources and "Strength of re-ranking" not in only_sources


def test_figures_without_a_value_are_dashes(served_report):
    changed = deepcopy(served_report)
    changed["served"]["models"]["als"] |= {"ndcg": None, "low": None, "high": None, "recall": None}
    changed["by_time_away"]["models"]["als"] = [None] * 5
    page = render(changed)
    served = {row[0]: row[1:] for row in table_rows(page, "Evaluated as served")}
    assert served["als retriever"] == ["–"] * 3
    assert {row[0]: row for row in table_rows(page, "By time since the last event")}["als"][1:6] == ["–"] * 5


def test_a_failed_stage_is_named_before_all_figures(served_report):
    page = render(served_report | {"degraded": {"ranking": 7}})
    assert 0 < page.index("ranking failed during 7 requests") < page.index("Evaluated as served")


def test_labels_are_moved_apart_and_keep_their_order():
    assert move_apart([0.0, 1.0, 5.0], 1.0) == [0.0, 1.0, 5.0]
    np.testing.assert_allclose(move_apart([1.0, 1.0, 1.0], 0.5), [0.5, 1.0, 1.5])
    rng = np.random.default_rng(3)
    for _ in range(50):
        places = np.array(move_apart(sorted(rng.uniform(0, 1, rng.integers(1, 12))), 0.07))
        assert (np.diff(places) >= 0.07 - 1e-9).all()


def test_trials_of_tuning_are_stored_and_shown(report, tmp_path: Path):
    tuned = report["tuning"]["als"]
    assert (tuned["configured"], tuned["best"], tuned["params"]) == (0.25, 0.375, {"reg": 0.125})
    assert [trial["error"] for trial in tuned["trials"]] == [None, "reg < 0", None]
    write_report(report, tmp_path)
    row = re.search(
        r"<h2>Tuning</h2>.*?<tr><td>als(.*?)</tr>", (tmp_path / "report.html").read_text("utf-8"), re.DOTALL
    )
    assert row and re.findall(r"<td[^>]*>([^<]*)", row[1]) == ["0.2500", "0.3750", "3 of 7", "1", "3", "reg 0.125"]


def test_without_tuning_there_is_no_table_of_it(snapshot, tmp_path: Path):
    report = build_report(run(snapshot, count=5), ReportContext("planted", 0))
    write_report(report, tmp_path)
    assert report["tuning"] == {} and "<h2>Tuning" not in (tmp_path / "report.html").read_text("utf-8")


def test_a_single_request_gives_a_report(snapshot, tmp_path: Path):
    replay = run(snapshot, count=1)
    report = build_report(replay, ReportContext("planted", 0))
    assert "is undecided against" in report["summary"]
    write_report(report, tmp_path)
    assert "only 1 test requests" in " ".join(report["reasons"])


def test_without_requests_the_error_says_what_to_do(snapshot):
    with pytest.raises(TrainingError, match=r"increase split\.test_days"):
        run(snapshot, count=0)


def test_two_models_with_one_name_are_rejected(snapshot):
    with pytest.raises(TrainingError, match="two models are named 'als'"):
        run(snapshot, others={"als": lambda requests: np.zeros((len(requests), 10), np.int32)})


def test_recommend_slates_returns_the_slates_of_the_funnel(snapshot):
    relevant, everything = make_relevant(), np.arange(ITEMS)
    eligibility = Eligibility(snapshot, (Surface(),))
    stage = LocalCandidates({"content": Planted(relevant, 1.0, everything)}, eligibility, RetrievalConfig())
    funnel = Funnel(stage, Planted(relevant, 0.0, everything), Order(), ITEMS)
    found = recommend_slates(funnel, make_requests(), n=4, chunk=64)
    assert found.shape == (REQUESTS, 4)
    assert all(set(found[b]) == set(relevant.item.row(b)) for b in range(REQUESTS))
