"""The trained deployment, served over HTTP from real Feast rows, against a reference that shares no code with it.

handsell.testing.naive_funnel says what the reference recomputes and what it reads from the bundle.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from handsell.bundles.stages import apply_choices, load_stages
from handsell.core.batches import Ragged
from handsell.core.funnel import run_local
from handsell.features.matrix import SnapshotValues, build_matrix
from handsell.features.request_builder import build_events, build_requests_from_rows
from handsell.testing.naive_funnel import NaiveFunnel, NaiveRequest
from handsell.testing.naive_past import DAY_US, NaiveEvent, NaiveUser, read_catalog
from impressions import wait_for_impressions

COUNT = 12
SESSION = (("listen", 3), ("save", 40), ("skip", 7), ("listen", 40))


@dataclass(frozen=True)
class Case:
    user: str
    surface: str = "home"
    session: tuple[tuple[str, int], ...] = ()  # event type, item number
    exclude: tuple[int, ...] = ()


CASES = (
    *(Case(f"u{user:07d}") for user in (0, 3, 17, 42, 77, 101, 149)),
    *(Case(f"u{user:07d}", "discover") for user in (0, 3, 42, 77)),
    *(Case(f"u{user:07d}", "email") for user in (0, 3, 42)),
    Case("u0000005", exclude=tuple(range(0, 400, 3))),
    Case("u0000003", session=SESSION),
    Case("u0000017", "discover", SESSION),
    Case("nobody_yet"),
    Case("nobody_either", "discover", SESSION),
    Case("nobody_at_all", session=(("skip", 5),)),
)


@pytest.fixture(scope="module")
def client(deployment):
    """HTTP client of the graph, with the real feature store."""
    from ray import serve

    from handsell.serving.http.app import AppArgs, build

    port = deployment.config.serving.port
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(AppArgs(config=str(deployment.config.source), topology="graph")), name="tiny", route_prefix="/")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        until = time.monotonic() + 60
        while http.get("/readyz").status_code != 200:
            assert time.monotonic() < until, http.get("/readyz").text
            time.sleep(0.2)
        yield http
    serve.shutdown()


@pytest.fixture(scope="module")
def stages(deployment):
    return load_stages(deployment.path, apply_choices(deployment.config, deployment.path))


@pytest.fixture(scope="module")
def reference(deployment):
    return NaiveFunnel(read_catalog(deployment.config), deployment.path)


@pytest.fixture(scope="module")
def answers(client, deployment):
    """Map each case to (response body, request time in µs as the service logged it)."""
    found = {case: client.post("/v1/recommendations", json=build_body(case, deployment)).json() for case in CASES}
    times = impression_times(deployment, {answer["recommendation_id"] for answer in found.values()})
    return {case: (answer, times[answer["recommendation_id"]]) for case, answer in found.items()}


def build_body(case, deployment):
    ids = load_ids(deployment)
    body = {"user_id": case.user, "surface": case.surface, "count": COUNT}
    if case.session:
        body["session"] = {"events": [{"type": kind, "item_id": ids[item]} for kind, item in case.session]}
    if case.exclude:
        body["exclude"] = {"item_ids": [ids[item] for item in case.exclude]}
    return body


def load_ids(deployment):
    return pq.read_table(deployment.layout.items)["item_id"].to_pylist()


def impression_times(deployment, wanted):
    return {name: shown["time"][0] for name, shown in wait_for_impressions(deployment.config, wanted).items()}


def build_reference_request(case, now, reference):
    """Build the case for the reference; the events of the session are in the last microseconds, in order."""
    catalog = reference.catalog
    first = now - len(case.session)
    weight = {name: kind.weight for name, kind in catalog.config.events.types.items()}
    session = [NaiveEvent(item, kind, first + i, weight[kind]) for i, (kind, item) in enumerate(case.session)]
    user = NaiveUser(catalog, catalog.log.get(case.user, []) + session, now)
    return NaiveRequest(user, case.surface, frozenset(case.exclude))


def build_request(case, now, deployment, stages):
    """Build the case for the product's funnel, from the online row."""
    n = len(case.session)
    config, snapshot = deployment.config, stages.snapshot
    told = {
        "type": [kind for kind, _ in case.session],
        "item_id": snapshot.items.ids(np.array([item for _, item in case.session], int)) if n else [],
        "time": [now - n + i for i in range(n)],
    }
    return build_requests_from_rows(
        deployment.store().online_users([case.user]), snapshot, config, np.array([now]),
        np.array([config.surface_names.index(case.surface)], np.int8),
        exclude=Ragged.from_rows([case.exclude]), events=build_events(told, np.zeros(n, int), snapshot, config),
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.user}-{case.surface}-{len(case.session)}")
def test_the_slate_is_that_of_the_reference(case, answers, reference, stages, deployment):
    answer, now = answers[case]
    shown = [reference.catalog.item_ids.index(item["item_id"]) for item in answer["items"]]
    want = reference.recommend(build_reference_request(case, now, reference), COUNT, preferred=shown)
    ids, scores = [reference.catalog.item_ids[item] for item, _ in want], [score for _, score in want]
    assert len(ids) == COUNT
    assert [item["item_id"] for item in answer["items"]] == ids
    assert [item["score"] for item in answer["items"]] == pytest.approx(scores, abs=1e-5)
    assert answer["degraded"] == [] and answer["cold_start"] == (case.user not in reference.catalog.log)
    slate = run_local(stages.funnel.recommend(build_request(case, now, deployment, stages), COUNT))
    assert stages.snapshot.items.ids(slate.item[0]) == ids
    np.testing.assert_allclose(slate.score[0], scores, atol=1e-6)


@pytest.mark.parametrize("case", CASES[6:], ids=lambda case: f"{case.user}-{case.surface}-{len(case.session)}")
def test_candidates_and_features_are_those_of_the_reference(case, answers, reference, stages, deployment):
    """The order of candidates, and every feature column."""
    _, now = answers[case]
    asked, request = build_reference_request(case, now, reference), build_request(case, now, deployment, stages)
    want = reference.find_candidates(asked)
    found = run_local(stages.candidates.candidates(request, deployment.config.retrieval.candidates))
    assert found.item[0].tolist() == [item for item, _, _ in want]
    x = build_matrix(request, found, SnapshotValues(stages.snapshot), stages.snapshot, deployment.config)[0]
    expected = reference.build_matrix(asked, want)
    names = list(stages.ranking.ranker.features)
    for column, name in enumerate(names):
        if name.startswith("src_") and name.endswith("_rank"):
            score = expected[:, names.index(name.replace("_rank", "_z"))]
            assert find_wrong_ranks(x[:, column], expected[:, column], score) == [], name
        else:
            np.testing.assert_allclose(x[:, column], expected[:, column], rtol=1e-4, atol=1e-5, err_msg=name)


def find_wrong_ranks(actual: np.ndarray, expected: np.ndarray, score: np.ndarray) -> list[int]:
    """Find rows with unexpected ranks; rows whose scores are equal up to rounding may be exchanged."""
    differ = np.flatnonzero(~np.isclose(actual, expected, equal_nan=True))
    holders = [np.flatnonzero(expected == actual[row]) for row in differ]
    return [
        int(row)
        for row, held in zip(differ, holders, strict=True)
        if len(held) != 1 or not np.isclose(score[row], score[held[0]], rtol=1e-4, atol=1e-5)
    ]


def test_only_items_of_equal_scores_may_be_exchanged():
    rank, score = np.array([0, 1, 2, np.nan]), np.array([2.0, 1.0, 1.000001, np.nan])
    assert find_wrong_ranks(rank, rank, score) == []
    assert find_wrong_ranks(np.array([0, 2, 1, np.nan]), rank, score) == []
    assert find_wrong_ranks(np.array([1, 0, 2, np.nan]), rank, score) == [0, 1]
    assert find_wrong_ranks(np.array([0, 1, 7, np.nan]), rank, score) == [2]
    assert find_wrong_ranks(np.array([0, 1, 2, 3]), rank, score) == [3]


def test_no_request_is_earlier_than_the_events_of_its_row(answers, reference):
    """With serving.clock = "data" the clock is after the end of the log."""
    last = max(event.time for log in reference.catalog.log.values() for event in log)
    assert all(last < now <= last + 2 * DAY_US for _, now in answers.values())


def test_the_cases_differ(answers):
    """Repeat policy, session and exclusions each change the slate; otherwise the comparison would be weak."""
    shown = {case: [item["item_id"] for item in answer["items"]] for case, (answer, _) in answers.items()}
    assert len({tuple(items) for items in shown.values()}) >= len(CASES) - 2
    for user in ("u0000000", "u0000003", "u0000042"):
        assert shown[Case(user)] != shown[Case(user, "discover")]
    assert shown[Case("u0000003")] != shown[Case("u0000003", session=SESSION)]
    assert shown[Case("nobody_yet")] != shown[Case("nobody_either", "discover", SESSION)]


def test_the_comparison_detects_a_changed_model(answers, reference, stages, deployment):
    """A ranker with permuted columns, or no diversity, does not give the reference's slates."""
    from dataclasses import replace

    from handsell.core.funnel import Funnel

    features = stages.ranking.ranker.features
    mixed = replace(stages.ranking, ranker=replace(stages.ranking.ranker, features=(*features[1:], features[0])))
    flat = stages.config.reranking.model_copy(update={"diversity": 0.0})
    plain = replace(stages.reranking, config=stages.config.model_copy(update={"reranking": flat}))
    for ranking, reranking in ((mixed, stages.reranking), (stages.ranking, plain)):
        funnel = Funnel(stages.candidates, ranking, reranking, deployment.config.retrieval.candidates, 40)
        changed = 0
        for case in CASES[:7]:
            now = answers[case][1]
            slate = run_local(funnel.recommend(build_request(case, now, deployment, stages), COUNT))
            assert slate.degraded == ()
            changed += slate.item[0].tolist() != [
                i for i, _ in reference.recommend(build_reference_request(case, now, reference), COUNT)
            ]
        assert changed >= 5


def test_a_thousand_requests_without_a_degraded_response(client):
    def ask(n):
        user = f"u{n % 150:07d}" if n % 10 else f"visitor{n}"
        answer = client.get(f"/v1/users/{user}/recommendations?count=5").json()
        return answer["degraded"] or len(answer["items"]) != 5

    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(ask, range(1_000)))
