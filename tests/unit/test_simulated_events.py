"""What simulations log and measure: rows of the event store, calls of the HTTP API, outcomes and their report."""

import json
from dataclasses import replace
from io import StringIO

import httpx
import numpy as np
import pytest
from rich.console import Console
from starlette.testclient import TestClient

from handsell.core.errors import HandsellError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.data.config import WorldConfig
from handsell.events.store.sqlite_reader import SqliteReader
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.http.api import build_api
from handsell.simulation import http_policy
from handsell.simulation.behavior import respond
from handsell.simulation.closed_loop import simulate_days
from handsell.simulation.deployed_policy import fill_up
from handsell.simulation.http_policy import HttpPolicy
from handsell.simulation.log_listens import draw_log_listens
from handsell.simulation.logged_rows import build_event_rows, build_organic_rows, build_slate_rows, name_slates
from handsell.simulation.organic import listen_organically
from handsell.simulation.outcomes import compare_outcomes, compute_outcomes
from handsell.simulation.policies import LoggingPolicy, OraclePolicy, PopularPolicy, RandomPolicy, SimulatedSlates
from handsell.simulation.population import build_population
from handsell.simulation.population_state import PopulationState
from handsell.simulation.released_items import ReleasedItems
from handsell.simulation.summary import build_report, print_summary, render_page
from handsell.simulation.trace import Trace
from handsell.simulation.visits import iterate_visits
from serving_service import build_service
from serving_world import write_world

WORLD = WorldConfig(users=300, items=500, artists=50, tags=12, days=16, users_per_partition=150)
TYPES = ("listen", "skip", "like", "save", "share")


@pytest.fixture(scope="module")
def population():
    return build_population(WORLD, days=5, users=200, seed=2, new_items_per_day=6)


@pytest.fixture(scope="module")
def traces(population):
    def trace(make):
        state = PopulationState.start(population, draw_log_listens(WORLD, 200))
        return simulate_days(population, state, make(state))

    popular = population.tracks.weight
    makers = {
        "popular": lambda _: PopularPolicy(population, popular), "random": lambda _: RandomPolicy(population),
        "oracle": lambda state: OraclePolicy(population, state),
    }  # fmt: skip
    return {name: trace(make) for name, make in makers.items()}


def visit_once(population):
    """The first visits of the first day, slates of the oracle, and the reactions."""
    state = PopulationState.start(population, draw_log_listens(WORLD, 200))
    visits = next(iterate_visits(population, state, 0))
    shown = OraclePolicy(population, state).recommend(visits, 10)
    responses = respond(population, state, visits, shown.item)
    return visits, shown, responses, listen_organically(population, state, visits, responses)


def test_the_event_store_takes_what_was_logged_once(population, tmp_path):
    visits, shown, responses, organic = visit_once(population)
    slates = build_slate_rows(visits, shown, "b1", 1)
    names = name_slates(visits)
    events = build_event_rows(visits, responses, names, TYPES) + build_organic_rows(visits, organic, names, TYPES)
    with SqliteWriter(tmp_path / "log.db") as writer:
        assert writer.append_slates(slates).result().accepted == len(visits)
        assert writer.append(events).result().accepted == len(events)
        assert writer.append(events).result().duplicates == len(events)
    reader = SqliteReader(tmp_path / "log.db")
    impressions = reader.read_impressions(0, 1000)
    assert len(impressions["item_id"]) == (shown.item >= 0).sum()
    found = reader.scan(0, 10_000)
    counts = {kind: found["type"].count(kind) for kind in TYPES}
    assert counts["listen"] == responses.listened.sum() + (organic.item >= 0).sum()
    assert counts["skip"] == responses.skipped.sum()
    assert counts["save"] == responses.saved.sum() + organic.saved.sum()
    place = found["recommendation_id"].index(names[0])
    item = shown.item[0, found["position"][place] - 1]
    assert found["item_id"][place] == f"t{item:07d}"
    reader.close()


def test_only_types_of_the_deployment_are_logged(population):
    visits, _, responses, organic = visit_once(population)
    names = name_slates(visits)
    assert {row["type"] for row in build_event_rows(visits, responses, names, ("listen",))} == {"listen"}
    assert {row["type"] for row in build_organic_rows(visits, organic, names, ("like",))} <= {"like"}


def test_nothing_happens_before_the_visit_or_after_it_is_over(population):
    visits, _, responses, organic = visit_once(population)
    for row in build_event_rows(visits, responses, name_slates(visits), TYPES):
        begin = visits.time[visits.user.tolist().index(int(row["user_id"][1:]))]
        assert begin < row["time"] < begin + DAY_US // 8
    assert (
        organic.time[organic.item >= 0] > np.broadcast_to(visits.time[:, None], organic.item.shape)[organic.item >= 0]
    ).all()


def test_organic_listens_follow_tastes_and_do_not_depend_on_other_visitors(population):
    state = PopulationState.start(population, draw_log_listens(WORLD, 200))
    visits = next(iterate_visits(population, state, 0))
    nothing = np.full((len(visits), 10), -1)
    responses = respond(population, state, visits, nothing)
    before = PopulationState.start(population, draw_log_listens(WORLD, 200))
    whole = listen_organically(population, before, visits, responses)
    some = np.arange(0, len(visits), 2)
    again = PopulationState.start(population, draw_log_listens(WORLD, 200))
    half = listen_organically(population, again, visits.take(some), responses.take(some))
    np.testing.assert_array_equal(whole.item[some], half.item)
    mean = (whole.item >= 0).sum(axis=1).mean()
    assert mean == pytest.approx(WORLD.organic_share * 3.4, rel=0.2)
    chosen = respond(population, PopulationState.start(population), visits, whole.item)
    drawn = RandomPolicy(population).recommend(visits, 6).item
    other = respond(population, PopulationState.start(population), visits, np.where(whole.item >= 0, drawn, -1))
    assert chosen.enjoyment.sum() > 2 * other.enjoyment.sum()


def test_the_logging_policy_gives_the_probability_of_what_it_shows(population):
    state = PopulationState.start(population, draw_log_listens(WORLD, 200))
    visits = next(iterate_visits(population, state, 0)).take(slice(0, 1))
    counts, expected, draws = np.zeros(len(population.tracks)), {}, 1200
    for seed in range(draws):
        shown = LoggingPolicy(replace(population, seed=seed), state).recommend(visits, 1)
        counts[shown.item[0, 0]] += 1
        expected[int(shown.item[0, 0])] = float(shown.propensity[0, 0])
    often = [item for item in expected if expected[item] > 0.01]
    assert len(often) > 3
    for item in often:
        assert counts[item] / draws == pytest.approx(expected[item], abs=5 * np.sqrt(expected[item] / draws))


def test_a_policy_that_shows_mistakes_loses_and_the_truth_wins(population, traces):
    found = {name: compute_outcomes(population, trace) for name, trace in traces.items()}
    assert compare_outcomes(found, "popular")["satisfaction", "random"].outcome == "beats"
    assert compare_outcomes(found, "random")["value", "popular"].outcome == "loses"
    assert compare_outcomes(found, "oracle")["value", "popular"].outcome == "beats"
    same = compare_outcomes({"a": found["popular"], "b": found["popular"]}, "a")
    assert {c.outcome for c in same.values()} == {"undecided"}


def test_outcomes_count_what_a_planted_trace_holds(population, traces):
    trace = traces["random"]
    new = population.old_items  # the first track released; shown at each visit at the top
    item = trace.responses.item.copy()
    item[:, 0] = new
    item[:, 1:] = np.where(item[:, 1:] == new, 0, item[:, 1:])
    played = np.zeros(item.shape, bool)
    played[:, 0] = True
    planted = Trace(
        trace.visits, trace.propensity,
        replace(trace.responses, item=item, played=played, skipped=~played, saved=played & False,
                satisfaction=np.full(len(item), 0.25)),
    )  # fmt: skip
    found = compute_outcomes(population, planted)
    np.testing.assert_allclose(found.daily["satisfaction"], 0.25)
    np.testing.assert_allclose(found.daily["clicks"], 1.0)
    assert found.totals["conversion"] == 0 and found.totals["ctr"] == pytest.approx(0.1)
    tenth = np.sort(trace.visits.time)[9]
    assert found.days_to_enough[0] == pytest.approx((tenth - population.tracks.published[new]) / DAY_US)
    visitors = len(np.unique(trace.visits.row[trace.visits.day == 0]))
    assert found.daily["active"][0] == pytest.approx(visitors / population.count_joined(0))
    assert found.daily["entropy"][-1] == pytest.approx(np.log2((population.tracks.tags[new] >= 0).sum()))


def test_traces_are_read_as_they_were_saved(traces, tmp_path):
    traces["oracle"].save(tmp_path / "trace.npz")
    loaded = Trace.load(tmp_path / "trace.npz")
    np.testing.assert_array_equal(loaded.responses.item, traces["oracle"].responses.item)
    np.testing.assert_array_equal(loaded.visits.time, traces["oracle"].visits.time)
    assert not list(tmp_path.glob("*.part*"))


def test_the_report_names_policies_and_comparisons(population, traces):
    found = {"popularity": compute_outcomes(population, traces["random"])}
    found["funnel"] = compute_outcomes(population, traces["popular"])
    options = {"days": 5, "users": 200, "seed": 2, "every": 2}
    report = json.loads(json.dumps(build_report(found, {"funnel": ["after day 2: <b>"]}, options)))
    page = render_page(report)
    assert page.count("data:image/svg+xml") == 8 and "after day 2: &lt;b&gt;" in page
    out = StringIO()
    print_summary(report, Console(file=out, width=100))
    assert "funnel beats popularity in satisfaction per visit" in out.getvalue()


def test_lists_are_filled_up_without_repeats():
    own, others = np.array([[4, -1, -1], [1, 2, 3]]), np.array([[4, 5, 6, 7], [9, 9, 9, 9]])
    np.testing.assert_array_equal(fill_up(own, others), [[4, 5, 6], [1, 2, 3]])


class Service:
    """Answers the calls of a population: every user gets the same ten items, one of them unknown to it."""

    def __init__(self):
        self.events, self.items, self.asked = [], [], 0

    def __call__(self, request):
        body = json.loads(request.content)
        if request.url.path == "/v1/recommendations":
            self.asked += 1
            ids = [*(f"t{k:07d}" for k in range(9)), "sponsored"]
            items = [{"item_id": item_id, "score": 0.5} for item_id in ids]
            return httpx.Response(
                200, json={"recommendation_id": f"r-{body['user_id']}", "items": items, "degraded": []}
            )
        if request.url.path == "/v1/items":
            self.items += body["items"]
            return httpx.Response(200, json={"rejected": []})
        self.events += body["events"]
        return httpx.Response(202, json={"rejected": []})


def test_a_service_is_asked_and_told_over_http(population):
    service, trained = Service(), []
    client = httpx.Client(base_url="http://shop", transport=httpx.MockTransport(service))
    policy = HttpPolicy(client, population, frozenset(TYPES), lambda: trained.append(1) or "trained", every=2)
    trace = simulate_days(population, PopulationState.start(population), policy)
    assert service.asked == len(trace) and trace.responses.item[0].tolist() == [*range(9), -1]
    assert policy.unknown == len(trace)
    assert len(trained) == 2  # after days 2 and 4; the fifth is the last
    assert {row["item_id"] for row in service.items} == {
        f"t{k:07d}" for k in range(population.old_items, len(population.tracks))
    }
    shown = [event for event in service.events if event.get("recommendation_id")]
    assert all(event["recommendation_id"] == f"r-{event['user_id']}" and "time" not in event for event in shown)
    listens = sum(event["type"] == "listen" for event in shown)
    assert listens == trace.responses.listened.sum()


def test_a_service_that_is_overloaded_is_asked_again(population, monkeypatch):
    waits = []
    monkeypatch.setattr(http_policy.time, "sleep", waits.append)
    service, busy = Service(), [{"retry-after": "2"}, {}, {"retry-after": "60"}]

    def answer(request):
        return httpx.Response(503, headers=busy.pop(0)) if busy else service(request)

    client = httpx.Client(base_url="http://shop", transport=httpx.MockTransport(answer))
    HttpPolicy(client, population, frozenset(TYPES))
    assert waits == [2, 1, 5] and service.items


def test_a_service_that_fails_is_named(population, monkeypatch):
    monkeypatch.setattr(http_policy.time, "sleep", lambda seconds: None)

    def fail(request):
        raise httpx.ConnectError("refused", request=request)

    for handler, expected in ((fail, "does not answer"), (lambda _: httpx.Response(503, text="busy"), "got 503: busy")):
        client = httpx.Client(base_url="http://shop", transport=httpx.MockTransport(handler))
        with pytest.raises(HandsellError, match=expected):
            HttpPolicy(client, population, frozenset(TYPES))


def test_released_tracks_have_rows_without_hidden_parameters(population):
    items = population.list_released(0)
    rows = ReleasedItems.of(population).build_rows(items)
    assert list(rows) == [f"t{k:07d}" for k in items.tolist()]
    row = rows[f"t{items[0]:07d}"]
    assert row["title"] and row["creators"] and row["tags"] and row["published_at"] >= population.start
    assert not {"vector", "weight", "lure"} & set(row)
    json.dumps(rows)


def test_slates_without_scores_are_logged_without_scores(population):
    visits, shown, *_ = visit_once(population)
    row = build_slate_rows(visits, SimulatedSlates(shown.item, shown.propensity, shown.propensity), "b", 5)[1]
    assert row["sequence"] == 6 and json.loads(row["items"])["score"][0] == pytest.approx(shown.propensity[1, 0])
    assert json.loads(build_slate_rows(visits, shown, "b", 5)[0]["items"])["score"] == [None] * 10


def test_the_api_takes_what_the_population_sends(population, tmp_path):
    world = write_world(tmp_path)
    with SqliteWriter(Layout(world.config.state).event_log) as log:
        service = build_service(world, LocalSink(log))
        with TestClient(build_api(service), base_url="http://shop") as client:
            policy = HttpPolicy(client, population, frozenset(("like", "skip")))
            trace = simulate_days(replace(population, days=1), PopulationState.start(population), policy)
            released = f"t{population.list_released(0)[0]:07d}"
            assert client.get(f"/v1/items/{released}").status_code == 200
    assert policy.unknown > 0  # this shop has other items than the world
    reader = SqliteReader(Layout(world.config.state).event_log)
    likes, organic = reader.scan(0, 10_000)["type"].count("like"), population.world.organic_share * 3.4 * len(trace)
    assert 0 < likes < organic
    reader.close()
