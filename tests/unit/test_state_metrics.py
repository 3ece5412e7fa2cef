"""Metrics of store and disk: what they say about a store in a known state."""

from contextlib import closing

import pytest
from prometheus_client import CollectorRegistry

from backed_up_shop import build_event, build_slate
from handsell.core.paths import Layout
from handsell.events.compaction import compact
from handsell.events.store.opening import open_writer
from handsell.serving.telemetry.observability import Metrics
from handsell.serving.telemetry.state_metrics import Lag, StateMetrics, measure_state


@pytest.fixture
def shop(configured):
    config = configured('name = "shop"\n')
    with closing(open_writer(config)) as log:
        log.append([build_event(n) for n in range(10)]).result()
        log.append_slates([build_slate(1)]).result()
        log.save_position("processor", 7).result()
    return config


def test_lag_is_what_a_reader_has_not_read_and_the_age_of_the_oldest(shop):
    first_us = build_event(0)["time"]
    before = measure_state(shop, first_us + 5_000_000)
    assert before.lags["compaction"] == Lag(10, 5.0)
    assert before.lags["processor"] == Lag(3, pytest.approx(5.0, abs=1e-4))
    compact(shop, lambda _: None)
    after = measure_state(shop, first_us + 5_000_000)
    assert after.lags["compaction"] == Lag(0, 0.0) and after.lags["processor"].events == 3
    assert after.store["events"] == 10 and after.store["slates"] == 1 and after.store["bytes"] > 0
    assert after.disk["events"] >= after.store["bytes"] and after.disk["compacted"] > 0
    assert after.free > 0


def test_measures_are_published(shop):
    registry = CollectorRegistry()
    metrics = StateMetrics(registry)
    metrics.publish(measure_state(shop, 0))
    assert registry.get_sample_value("handsell_lag_events", {"reader": "processor"}) == 3
    assert registry.get_sample_value("handsell_store_rows", {"table": "events"}) == 10
    assert registry.get_sample_value("handsell_store_bytes") > 0
    assert registry.get_sample_value("handsell_disk_bytes", {"folder": "events"}) > 0
    assert registry.get_sample_value("handsell_state_age_seconds") < 60


async def test_a_store_that_does_not_answer_leaves_the_last_values(shop, monkeypatch):
    from handsell.serving.telemetry import state_metrics

    registry, rounds = CollectorRegistry(), []
    metrics = StateMetrics(registry)
    metrics.publish(measure_state(shop, 0))

    async def sleep(_):
        rounds.append(1)
        if len(rounds) > 1:
            raise InterruptedError
        Layout(shop.state).event_log.write_bytes(b"no database")

    monkeypatch.setattr(state_metrics.asyncio, "sleep", sleep)
    with pytest.raises(InterruptedError):
        await metrics.run(shop, lambda: 0)
    assert registry.get_sample_value("handsell_store_rows", {"table": "events"}) == 10


def test_appends_are_timed_and_waiting_events_counted():
    metrics = Metrics()
    with pytest.raises(ValueError), metrics.time_append("events", 5):
        assert metrics.registry.get_sample_value("handsell_waiting_events") == 5
        raise ValueError
    assert metrics.registry.get_sample_value("handsell_waiting_events") == 0
    assert metrics.registry.get_sample_value("handsell_append_seconds_count", {"table": "events"}) == 1
