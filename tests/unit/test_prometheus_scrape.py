"""A real Prometheus scrapes a running gateway: it evaluates every rule and answers every query of every dashboard."""

import json

import httpx
import pytest
from deployments.monitoring.__main__ import FOLDER

from gateway_server import run_gateway
from handsell.core.paths import Layout
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.telemetry.metric_table import list_own_metrics
from prometheus_server import start_prometheus
from serving_service import build_service
from serving_world import write_world

SHOWN = {  # panels that have something to show for a few requests and one event
    "Requests by status", "Time of a list", "Share that is bad, over one hour", "Lists by surface", "Bundles served",
    "Time of a batch, p50", "Requests in a batch, mean", "Events by outcome", "Free disk space", "Event store",
    "Age of the oldest unread event", "Diversity, mean", "Candidates by source", "Availability: budget left",
    "Latency: budget left", "Freshness: budget left", "Degraded: budget left",
}  # fmt: skip


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    world = write_world(tmp_path_factory.mktemp("shop"))
    with (
        SqliteWriter(Layout(world.config.state).event_log) as log,
        run_gateway(build_service(world, LocalSink(log))) as url,
        start_prometheus(tmp_path_factory.mktemp("prometheus"), {"handsell": url.removeprefix("http://")}) as server,
    ):
        ask(url)
        server.wait_for('handsell_events_total{outcome="accepted"} > 0')
        ask(url)  # a rate needs two samples
        server.wait_for("handsell:latency_bad:share_5m")
        server.wait_for("handsell:freshness:budget_left")
        yield server


def ask(url: str) -> None:
    for user in range(10):
        assert httpx.get(f"{url}/v1/users/u{user}/recommendations", timeout=30).status_code == 200
    event = {"user_id": "u1", "item_id": "i1", "type": "play"}
    assert httpx.post(f"{url}/v1/events", json={"events": [event]}, timeout=30).status_code == 202


def test_every_metric_of_the_table_is_exported(prometheus):
    """Families without a sample are announced, too."""
    expected = {metric.name + ("_total" if metric.kind == "counter" else "") for metric in list_own_metrics()}
    assert sorted(expected - set(prometheus.read("metadata"))) == []


def test_every_query_of_every_dashboard_is_answered(prometheus):
    queries: dict[str, list[str]] = {}
    for path in sorted((FOLDER / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                expr = target["expr"].replace("$job", ".+").replace("$__rate_interval", "1m")
                queries.setdefault(panel["title"], []).append(expr)
                prometheus.query(expr)
    assert len(queries) > 40 and set(queries) >= SHOWN
    for title in SHOWN:
        prometheus.wait_for(" or ".join(f"({expr})" for expr in queries[title]))


def test_every_rule_is_evaluated_and_a_gateway_that_answers_is_not_down(prometheus):
    rules = [rule for group in prometheus.read("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 50
    assert not [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"]
    told = {alert["labels"]["alertname"] for alert in prometheus.read("alerts")["alerts"]}  # pending ones, too
    assert not told & {"HandsellDown", "HandsellAvailabilityFast", "HandsellAvailabilitySlow"}


def test_an_answer_without_errors_is_recorded_as_a_share_of_zero(prometheus):
    (share,) = prometheus.query("handsell:availability_bad:share_5m")
    assert share["metric"]["job"] == "handsell" and float(share["value"][1]) == 0.0
