"""Pods are deleted by force, and main processes killed, under load: the promises of docs/faults.md."""

from __future__ import annotations

import time

import pytest

from kube_cluster import (
    Load,
    is_ready,
    list_heads,
    list_pods,
    list_ready,
    run_in_pod,
    run_kubectl,
    summarize,
    wait_until,
)

pytestmark = pytest.mark.slow
LOAD_S, SETTLE_S, BACK_S = 60.0, 8.0, 180.0
IN_FLIGHT = 8  # connections, each with one request in flight
STORES = {"postgresql": "postgresql-0", "redis": "redis-0"}


def delete(pod: str) -> None:
    run_kubectl("-n", "handsell", "delete", "pod", pod, "--grace-period=0", "--force")


def kill(pod: str) -> None:
    """Kill every process of the container; process 1, which none of them may kill, ends after its child."""
    container = "ray-head" if "head" in pod else "ray-worker" if "worker" in pod else pod.rpartition("-")[0]
    run_kubectl("-n", "handsell", "exec", pod, "-c", container, "--", "bash", "-c", "kill -9 -- -1", check=False)


def count_lost(acknowledged: list[str]) -> int:
    """How many acknowledged events are not in the event store."""
    text = run_in_pod("postgresql-0", "psql", "-U", "handsell", "-tAc", "SELECT event_id FROM events")
    return len(set(acknowledged) - set(text.split()))


@pytest.mark.parametrize("how", [delete, kill], ids=["deleted", "killed"])
@pytest.mark.parametrize("group", ["gateway", "candidates", "ranking", "reranking"])
def test_a_lost_pod_of_a_group_costs_at_most_requests_in_flight(key, figures, group, how):
    wait_until("a pod", lambda: list_ready(group), BACK_S)
    load = Load(LOAD_S, IN_FLIGHT, events=0.2)
    time.sleep(SETTLE_S)
    lost = list_ready(group)[0]
    begun = time.monotonic()
    how(lost)
    wait_until("another pod", lambda: [pod for pod in list_ready(group) if pod != lost or how is kill], BACK_S)
    figures.record(f"{group} {how.__name__}: another one is ready", time.monotonic() - begun)
    result = load.result()
    figures.record(f"{group} {how.__name__}", summarize(result))
    assert count_lost(result["acknowledged"]) == 0
    if group != "gateway":  # with one gateway pod, its loss is an outage until another one is ready
        assert result["ok"] >= 0.999 * result["sent"] - 1


def test_a_lost_head_costs_at_most_a_request_on_a_connection_that_haproxy_closes(key, figures):
    load = Load(LOAD_S, IN_FLIGHT, events=0.2)
    time.sleep(SETTLE_S)
    (lost,) = wait_until("one head", lambda: len(heads := list_heads()) == 1 and heads, BACK_S)
    begun = time.monotonic()
    delete(lost)
    wait_until("another head", lambda: [pod for pod in list_heads() if pod != lost], BACK_S)
    figures.record("head deleted: another one is ready", time.monotonic() - begun)
    result = load.result()
    figures.record("head deleted", summarize(result))
    # Serve's HAProxy starts anew for the new head, twice: a connection that it closes may have a request on its way
    assert result["errors_count"] <= 2 and result["refused_count"] == 0 and count_lost(result["acknowledged"]) == 0


@pytest.mark.parametrize("store", STORES)
def test_a_lost_store_loses_no_acknowledged_event(key, figures, store):
    load = Load(LOAD_S, IN_FLIGHT, events=0.2)
    time.sleep(SETTLE_S)
    begun = time.monotonic()
    delete(STORES[store])
    wait_until(store, lambda: [pod for pod in list_pods(f"app.kubernetes.io/name={store}") if is_ready(pod)], BACK_S)
    figures.record(f"{store} deleted: another one is ready", time.monotonic() - begun)
    result = load.result()
    figures.record(f"{store} deleted", summarize(result))
    assert count_lost(result["acknowledged"]) == 0
    assert not [status for _, status, _ in result["refused"] if status == 500]
