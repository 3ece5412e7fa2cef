"""What the console keeps of a service's metrics: rates of replicas that answer in turn, restarts, quantiles."""

import math

import pytest

from handsell.console.live.series_sums import SeriesSums
from handsell.console.live.service_series import FORGET_S, KEPT, ServiceSeries, parse_scrape
from handsell.console.live.service_watcher import ServiceWatcher
from handsell.serving.telemetry.observability import Metrics


def scrape(replica="a", home=0, coverage=None):
    metrics = Metrics(replica)
    metrics.slates.labels("home").inc(home)
    if coverage is not None:
        metrics.changes_age.set(coverage)
    return parse_scrape(metrics.render().decode())


def test_counters_of_replicas_that_answer_in_turn_add_up():
    series = ServiceSeries()
    for second, (replica, home) in enumerate([("a", 100), ("b", 1000), ("a", 110), ("b", 1005)]):
        series.add(scrape(replica, home), 60.0 + second)
    assert series.replicas == 2
    assert series.count_recent(1).sum("handsell_slates_total", surface="home") == 15
    assert series.count_since_start().sum("handsell_slates_total") == 1115


def test_a_restart_does_not_count_backwards():
    series = ServiceSeries()
    for second, home in enumerate([100, 110, 4]):
        series.add(scrape("a", home), second)
    assert series.count_recent(1).sum("handsell_slates_total") == 14


def test_minutes_are_apart_old_ones_are_dropped_and_many_are_joined():
    series = ServiceSeries()
    for minute in range(KEPT + 5):
        series.add(scrape("a", 10 * minute), 60.0 * minute)
        if minute == 30:
            assert [sums.sum("handsell_slates_total") for _, sums in series.list_points()] == [0, *[10] * 30]
    points = list(series.list_points())
    assert [time for time, _ in points[:2]] == [300.0, 600.0] and len(points) == KEPT / 5
    assert points[0][1].sum("handsell_slates_total") == 50
    assert series.count_recent(3).sum("handsell_slates_total") == 30


def test_finished_points_are_kept_and_a_time_without_answers_has_none():
    series = ServiceSeries()
    for minute in (*range(70), 90):
        series.add(scrape("a", 10 * minute), 60.0 * minute)
    first, again = list(series.list_points()), list(series.list_points())
    assert [time / 300 for time, _ in first] == [*range(14), 18]
    assert all(one is other for (_, one), (_, other) in zip(first[:-1], again[:-1], strict=True))
    series.add(scrape("a", 1_000), 60.0 * 91)
    assert list(series.list_points())[-1][1].sum("handsell_slates_total") == 210 + 100


def test_gauges_are_the_mean_of_the_replicas_and_those_of_a_gone_one_are_dropped():
    series = ServiceSeries()
    series.add(scrape("a", coverage=1.0), 0.0)
    series.add(scrape("b", coverage=3.0), 1.0)
    assert series.count_recent(1).gauge("handsell_catalog_changes_age_seconds") == 2.0
    series.add(scrape("b", coverage=5.0), FORGET_S + 1)
    assert series.replicas == 1 and series.count_recent(1).gauge("handsell_catalog_changes_age_seconds") == 5.0


def test_nothing_has_no_mean_quantile_or_gauge():
    empty = SeriesSums()
    assert empty.mean("handsell_slate_diversity") is None and empty.quantile("handsell_stage_seconds", 0.5) is None
    assert empty.gauge("handsell_exposure_gini") is None and empty.sum("handsell_slates_total") == 0


def test_quantiles_lie_within_their_bucket_and_beyond_the_last_bound_at_it():
    metrics = Metrics("a")
    for seconds in [0.003] * 90 + [0.03] * 9 + [99.0]:
        metrics.stage_seconds.labels("ranking").observe(seconds)
    found = parse_scrape(metrics.render().decode())
    counts = SeriesSums(found.counters)
    assert 0.0025 < counts.quantile("handsell_stage_seconds", 0.5, stage="ranking") <= 0.005
    assert 0.02 < counts.quantile("handsell_stage_seconds", 0.95, stage="ranking") <= 0.04
    assert counts.quantile("handsell_stage_seconds", 1.0, stage="ranking") == 5.0
    assert counts.mean("handsell_stage_seconds") == pytest.approx((0.27 + 0.27 + 99) / 100)
    assert counts.quantile("handsell_stage_seconds", 0.5, stage="candidates") is None
    assert not math.isnan(counts.sum("handsell_stage_seconds_count"))


async def test_the_watcher_keeps_the_past_when_the_service_goes_away_and_asks_once_for_each_replica():
    texts = [Metrics(name).render().decode() for name in ("a", "b", "a", "b")]
    asked = []

    async def fetch():
        asked.append(1)
        if not texts:
            raise ConnectionError
        return texts.pop(0)

    watcher = ServiceWatcher(fetch, now=lambda: 7.0)
    await watcher.read()
    await watcher.refresh()
    assert len(asked) == 1
    await watcher.read()
    assert watcher.problem == "" and watcher.series.replicas == 2 and len(asked) == 2
    await watcher.read()
    assert len(asked) == 4
    await watcher.read()
    assert watcher.problem == "The service does not answer (ConnectionError)." and watcher.series.replicas == 2
