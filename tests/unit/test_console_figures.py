"""What pages of the console say about metrics, reports, experiments and checks: words and values from planted data."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from experiment_world import change_experiments, two_arms
from handsell.bundles.opening import open_bundles
from handsell.console.figures import bundle_reports, checks, live_lists, service_health, trials
from handsell.console.figures.bundle_reports import ListedBundle
from handsell.console.figures.metric_words import METRICS, find_metric, name_model
from handsell.console.live.series_sums import SeriesSums
from handsell.console.live.service_series import ServiceSeries, parse_scrape
from handsell.core.errors import BundleError, ConfigError
from handsell.core.paths import Layout
from handsell.evaluation.metrics import DEFINITIONS
from handsell.experiments.state import ExperimentStates
from handsell.features.served_log import FEATURE_LOG, TABLES
from handsell.serving.telemetry.deployment_status import DeploymentReplicas
from handsell.serving.telemetry.observability import Metrics
from handsell.serving.telemetry.slate_metrics import SlateMetrics
from handsell.serving.telemetry.state_metrics import Lag, StateMeasures, StateMetrics
from reported_bundles import make_report, publish_report
from serving_world import write_world
from trial_results import make_analysis


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


def sums_of(change, replica="a") -> SeriesSums:
    """The sums of metrics that `change` has set."""
    metrics = Metrics(replica)
    slates = SlateMetrics(metrics.registry)
    change(metrics, slates)
    series = ServiceSeries()
    series.add(parse_scrape(metrics.render().decode()), 0.0)
    return series.count_since_start()


def find(cards, title):
    return next(card for card in cards if card.title == title)


def test_words_exist_for_what_reports_have_and_directions_are_those_of_the_definitions():
    assert not set(METRICS) - set(DEFINITIONS)
    assert {name: words.better for name, words in METRICS.items()} == {n: DEFINITIONS[n].better for n in METRICS}
    assert find_metric("coverage@10").title == "Catalog shown" and find_metric("other@10") is None
    assert name_model("baseline: EASE") == "Simple rule: EASE" and name_model("latest") == "latest"


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("coverage", 0.306, "31%"), ("small_creators", 0.069, "6.9%"), ("novelty", 9.42, "9.4 bits"),
        ("ndcg", 0.2649, "0.265"), ("drift", -0.0407, "-0.04 bits"), ("coverage", None, "–"),
        ("gini", float("nan"), "–"),
    ],
)  # fmt: skip
def test_values_read_as_people_read_them(metric, value, shown):
    assert METRICS[metric].show(value) == shown


def test_cards_of_lists_are_of_one_surface_or_of_all():
    def serve(metrics, slates):
        for surface, diversity in (("home", 0.8), ("home", 0.6), ("email", 0.2)):
            metrics.count_answer(surface, cold=surface == "email", short=False, degraded=())
            slates.diversity.labels(surface).observe(diversity)
        slates.explored.labels("home").inc(3)

    sums = sums_of(serve)
    home, every = live_lists.build_cards(sums, "home"), live_lists.build_cards(sums)
    assert find(home, "Lists").value == "2" and find(home, "Variety within a list").value == "70%"
    assert find(home, "Tried out").value == "1.50" and "For new people" not in [card.title for card in home]
    assert find(every, "Lists").value == "3" and find(every, "For new people").value == "33.3%"
    assert live_lists.list_surfaces(sums) == ["email", "home"]
    assert find(live_lists.build_cards(SeriesSums()), "Too short").value == "–"


def test_days_become_lines_and_a_day_words():
    day = {
        "day": "2026-05-27", "slates": 3, "people": 2, "coverage": 0.3, "gini": 0.5, "diversity": 0.25, "novelty": 4.0,
        "repeat_rate": None, "exposure": {"large": 0.5, "middle": 0.3, "small": 0.2},
    }  # fmt: skip
    lines = live_lists.draw_days([day, {**day, "day": "2026-05-28", "exposure": {}}], "exposure")
    assert [line.name for line in lines] == ["large creators", "middle-sized creators", "small creators"]
    assert lines[2].points == [(1779840000.0, 0.2), (1779926400.0, None)]
    assert live_lists.draw_days([day], "diversity")[0].points == [(1779840000.0, 0.25)]
    assert ("Repeated", "–") in live_lists.describe_day(day) and (
        "Places for small creators",
        "20%",
    ) in live_lists.describe_day(day)


def test_requests_stages_and_causes_are_counted_and_marked():
    def serve(metrics, slates):
        metrics.requests.labels("/v1/recommendations", "200").inc(90)
        metrics.requests.labels("/v1/events", "503").inc(5)
        metrics.requests.labels("/v1/events", "422").inc(5)
        for _ in range(100):
            metrics.request_seconds.labels("/v1/recommendations").observe(0.6)
            metrics.request_seconds.labels("/v1/events").observe(0.002)
            metrics.stage_seconds.labels("ranking").observe(0.003)
            metrics.count_answer("home", False, False, ["ranking"] if _ < 10 else [])
        metrics.impressions_lost.inc(2)

    sums = sums_of(serve)
    cards = service_health.build_request_cards(sums)
    assert (find(cards, "Failed").value, find(cards, "Failed").state) == ("5.00%", "bad")
    assert find(cards, "Refused").value == "5.00%" and find(cards, "Without a part").state == "warn"
    assert find(cards, "Slowest of 100").state == "warn" and find(cards, "Middle time of a list").value == "480 ms"
    assert find(cards, "Lists not recorded").state == "bad"
    (cause,) = service_health.count_causes(sums)
    assert (cause.cause, cause.answers, cause.share) == ("ranking", 10, 0.1) and "order of the sources" in cause.words
    stages = service_health.measure_stages(sums, {"ranking": "missing"})
    assert [(one.name, one.calls, one.status) for one in stages][2] == ("ranking", 100, "missing")
    assert 2.5 < stages[2].median_ms <= 5 and stages[0].median_ms is None


def test_lists_per_minute_count_the_seconds_that_were_read():
    series = ServiceSeries()
    for second, slates in ((50.0, 0), (70.0, 10), (90.0, 20), (121.0, 30)):
        metrics = Metrics("a")
        metrics.slates.labels("home").inc(slates)
        series.add(parse_scrape(metrics.render().decode()), second)
    lists, _ = service_health.draw_requests(list(series.list_points()))
    # 10 s of the first minute and 1 s of the last one are too short to have a rate
    assert [value for _, value in lists.points] == [None, pytest.approx(20.0), None]


def test_the_store_is_described_with_what_waits():
    def measure(metrics, slates):
        lags = {"processor": Lag(40, 90.0), "compaction": Lag(0, 0.0)}
        state = StateMetrics(metrics.registry)
        state.publish(
            StateMeasures({"bytes": 2_500_000, "events": 7, "slates": 0}, lags, {"logs": 9, "bundles": 4_000}, 2**29)
        )

    cards = service_health.build_store_cards(sums_of(measure))
    profiles = find(cards, "Profiles: behind")
    assert profiles.value == "40 events" and profiles.state == "warn" and "waits 90 s" in profiles.meaning
    assert find(cards, "Event store").value == "2.5 MB" and find(cards, "Event store").meaning == "Rows: 7 events."
    free = find(cards, "Free on the disk")
    assert free.state == "bad" and free.meaning.startswith("Largest folders: bundles 4 kB, logs 9 B")
    assert service_health.build_store_cards(SeriesSums()) == []


def test_parts_that_are_not_healthy_come_first():
    rows = service_health.describe_parts(
        [
            DeploymentReplicas("handsell", "Gateway", "HEALTHY", 2, {}, ""),
            DeploymentReplicas("handsell", "Shard1", "UPDATING", 1, {"STARTING": 1, "STOPPING": 0}, "busy"),
            DeploymentReplicas("handsell", "Ranking", "UNHEALTHY", 0, {}, "it ended"),
        ]
    )
    assert [(row.name, row.state) for row in rows] == [("Ranking", "bad"), ("Shard1", "warn"), ("Gateway", "good")]
    assert rows[1].replicas == "1 running, 1 starting" and rows[1].words == "Searches part 1 of the catalog"


def test_reports_are_listed_read_and_compared(world):
    store = open_bundles(world.config)
    older = publish_report(world, make_report(0.30, 0.5), 10)
    newer = publish_report(world, make_report(0.40, 0.6, "2026-07-01"), 20)
    listed = bundle_reports.list_bundles(store)
    assert [one.bundle for one in listed] == [newer, older, world.bundle] and listed[2].role == "live"
    assert listed[0].show("ndcg") == "0.400" and listed[2].show("ndcg") == "–"
    assert [value for _, value in bundle_reports.list_trend(listed)["diversity"]] == [0.5, 0.6]
    words = bundle_reports.describe_report(bundle_reports.read_report(store, newer))
    assert words.outcome == "beats" and words.models[0].words == "Lists as people get them"
    assert words.exposure == {"large creators": 0.75, "middle-sized creators": 0.18, "small creators": 0.07}
    assert words.segments == [("new users", 43, "0.070", "0.020 to 0.120")] and words.largest == pytest.approx(0.42)
    compared = bundle_reports.compare_reports(*(bundle_reports.read_report(store, name) for name in (older, newer)))
    rows = {row.words.title: row for row in compared.rows}
    assert rows["Hits per request (NDCG)"].change == "better" and rows["Variety within a list"].change == "higher"
    assert rows["Concentration"].change == "the same"
    assert "on those from 2026-06-29 to 2026-06-30 UTC, the second on those from 2026-07-01 to" in compared.warning
    with pytest.raises(BundleError, match=r"has no report\.json"):
        bundle_reports.read_report(store, world.bundle)


@pytest.mark.parametrize(
    ("other", "change"), [(0.31, "no clear"), (0.29, "no clear"), (0.36, "better"), (0.24, "worse")]
)
def test_hits_differ_where_their_intervals_do(other, change):
    compared = bundle_reports.compare_reports(make_report(0.30), make_report(other))
    assert compared.rows[0].change.startswith(change) and compared.warning == ""


@pytest.mark.parametrize(
    ("metric", "title", "value", "change"),
    [("gini", "Concentration", 0.5, "lower"), ("recall", "Found", 0.21, "higher"), ("recall", "Found", 0.1, "lower")],
)
def test_a_figure_without_an_interval_is_neither_better_nor_worse(metric, title, value, change):
    before, after = make_report(), make_report()
    after["models"]["funnel"]["metrics"][f"{metric}@10"] = value
    rows = {row.words.title: row for row in bundle_reports.compare_reports(before, after).rows}
    assert rows[title].change == change


def test_hits_of_requests_and_of_people_are_named_apart():
    before, after = make_report(0.30), make_report(0.31)
    after["served"]["models"]["funnel"] |= {"ndcg": 0.2, "low": 0.18, "high": 0.22}  # while hits of requests have risen
    rows = {row.words.title: row for row in bundle_reports.compare_reports(before, after).rows}
    requests, people = rows["Hits per request (NDCG)"], rows["Hits per person (NDCG)"]
    assert (requests.other, people.other) == ("0.310 (0.290 to 0.330)", "0.200 (0.180 to 0.220)")
    assert requests.change.startswith("no clear") and people.change == "worse"
    assert bundle_reports.describe_report(after).hits.title == "Hits per person (NDCG)"
    del after["served"]
    assert bundle_reports.describe_report(after).hits.title == "Hits per request (NDCG)"
    (other,) = (
        row for row in bundle_reports.compare_reports(before, after).rows if row.words.title == people.words.title
    )
    assert (other.other, other.change) == ("–", "")


@pytest.mark.parametrize(
    ("live", "one", "other", "pair"),
    [
        ("b3", "", "", ("b2", "b3")), ("b1", "", "", ("b1", "b3")), ("b3", "", "b3", ("b2", "b3")),
        ("b3", "", "b1", ("b1", "b3")), ("b1", "b3", "", ("b1", "b3")), ("b1", "b3", "b2", ("b3", "b2")),
        ("", "", "", ("b2", "b3")),
    ],
)  # fmt: skip
def test_the_older_bundle_is_compared_with_the_newer_one(live, one, other, pair):
    listed = [ListedBundle(name, "live" if name == live else "") for name in ("b3", "b2", "b1")]
    broken = ListedBundle("b4", "", problem="its manifest cannot be read")
    assert bundle_reports.choose_pair([broken, *listed], one, other) == pair
    assert bundle_reports.choose_pair([]) == ("", "") and "" in bundle_reports.choose_pair(listed[:1])


def test_a_report_of_an_earlier_version_is_described_without_what_it_lacks():
    report = make_report()
    del report["served"], report["segments"]
    words = bundle_reports.describe_report(report)
    assert words.sentence == "The funnel beats popularity." and words.models[0].value == 0.3 and words.segments == []


def test_a_check_of_served_values_waits_for_some(world):
    log = Layout(world.config.state).logs / FEATURE_LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    assert "has recorded none so far" in checks.explain_missing_input(world.config, "skew")
    assert checks.explain_missing_input(world.config, "data") == ""
    serving = world.config.serving.model_copy(update={"feature_log_share": 0.0})
    off = world.config.model_copy(update={"serving": serving})
    assert "feature_log_share is 0" in checks.explain_missing_input(off, "skew")
    with closing(sqlite3.connect(log)) as db:
        db.executescript(TABLES)
        assert checks.explain_missing_input(world.config, "skew")
        db.execute("INSERT INTO served VALUES (1, 'r', 'u', 'i', 0, 0, 0, 'b', 'h', x'')")
        db.commit()
    assert checks.explain_missing_input(world.config, "skew") == ""
    log.unlink()


def test_an_analysis_is_told_in_words():
    found = trials.describe_result(make_analysis(), "control")
    assert found.verdicts == [
        ("good", "bold is better than control: clicks per shown item +20.0%, between +5.0% and +35.0%.")
    ]
    assert [row.outcome for row in (*found.main, *found.others)] == ["better", "not yet told apart"]
    assert found.others[0].between == "too little data" and found.main[0].bounds == (0.05, 0.35)
    assert not found.ratio_failed and [(one.arm, one.share) for one in found.counts] == [
        ("control", "60.0%"),
        ("bold", "40.0%"),
    ]
    assert found.lists == [("Catalog shown", ["40.0%", "–"]), ("Items in a list", ["10.0", "9.5"])]
    assert found.place(0.0) == 50 and found.place(99) == 100 and found.place(-found.scale) == 0


def test_the_effect_over_time_leaves_out_days_that_know_nothing():
    (lines,) = trials.describe_result(make_analysis(), "control").curves.values()
    assert [line.name for line in lines] == ["effect", "at least", "at most"]
    assert [value for _, value in lines[0].points] == [None, 20.0, 20.0] and lines[1].points[2] == (259_200.0, 0.0)


def test_a_refused_verdict_says_why_and_names_no_winner():
    found = trials.describe_result(make_analysis(reasons=["sample ratio mismatch: …"], p=0.0001), "control")
    assert found.verdicts == [("bad", "No verdict: the data cannot be believed.")] and found.ratio_failed


def test_a_preference_is_told_in_words():
    found = {
        "control": "control", "challenger": "fresh", "outcome": "beats", "preference": 0.1, "low": 0.02, "high": 0.2,
        "shown": [10, 11], "clicks": [4, 6], "units": 9, "p_value": 0.01,
    }  # fmt: skip
    words = trials.describe_preference(found, "control")
    assert words.verdicts[0][0] == "good" and words.verdicts[0][1].startswith("People prefer fresh to control")
    assert words.counts[1].share == "6 clicks"


def test_arms_are_described_by_what_they_change(world):
    bold = 'reranking = { diversity = 0.2 }\nweights = { item_knn = 2.0 }\nrules = "none"'
    config = change_experiments(replace(world), two_arms("bolder", bold, unit='"session"')).config
    states = ExperimentStates()
    control, arm = trials.describe_arms(config.experiments["bolder"], states.of("bolder"))
    assert control.is_control and control.changes == ["what everybody gets"]
    assert arm.changes == ["no business rules", "the source item_knn counts 2 times", "re-ranking: diversity = 0.2"]
    (row,) = trials.list_experiments(config, states, 0)
    assert (row.state, row.share, row.arms) == ("runs", "100% of visits", "control 50%, bold 50%")


def test_a_check_of_data_says_whether_a_training_can_use_it():
    problem = {
        "name": "unknown item_id",
        "severity": "warning",
        "message": "ignore this.",
        "count": 1200,
        "examples": [{"row": 3}],
    }
    report = {
        "ok": True, "events": 5000, "interactions": 4000, "users": 10, "described_users": 0, "items": 20,
        "described_items": 30, "days": 9.6, "first": "2026-01-01", "last": None, "problems": [problem],
        "advice": ["Enough data."],
    }  # fmt: skip
    found = checks.describe_data(report, 5.0)
    assert found.kind == "warn" and found.problems == (
        ("warn", "unknown item_id (1,200)", "ignore this. Such as row 3."),
    )
    assert checks.describe_data({**report, "problems": []}, 5.0).kind == "good"
    assert checks.describe_data({**report, "ok": False}, 5.0).verdict.startswith("A training cannot")


def test_a_check_of_served_values_names_those_that_differ():
    row = {"feature": "item_trend", "compared": 40, "differing": 4, "share": 0.1}
    report = {
        "rows": 40,
        "answers": 4,
        "first_us": 0,
        "last_us": 60_000_000,
        "features": [row, {**row, "differing": 0}],
    }
    found = checks.describe_skew(report, 1.0)
    assert found.kind == "bad" and found.rows == (("item_trend", "40", "10.00%"),) and "1 of 2" in found.verdict
    assert checks.describe_skew({**report, "features": [{**row, "differing": 0}]}, 1.0).kind == "good"
    with pytest.raises(ConfigError, match="expected one of data, skew, got 'rm'"):
        checks.find_check("rm")
