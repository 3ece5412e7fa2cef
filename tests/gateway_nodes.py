"""Run two gateways on two raylets that share PostgreSQL, the bundles and no other file, and kill one after the other.

Prints as JSON what was answered and what became of the events. A separate program, because a process can connect to one
Ray cluster only: python gateway_nodes.py TOML FOLDER, with the store in $HANDSELL_EVENT_STORE.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import httpx
import ray
from benchmarks.durability.ledger import Ledger, compare_with_store
from benchmarks.events.event_load import EventLoad, start_event_load
from ray import cloudpickle, serve
from ray.cluster_utils import Cluster
from ray.util.state import list_actors

import serving_world
from handsell.config import load_config
from handsell.core.paths import Layout
from handsell.events.store.opening import open_reader
from handsell.serving.graph.gateway import Gateway
from handsell.serving.http.app import bind
from serving_nodes import wait_until_ready

MIB = 1024**2
LIMIT_S = 90.0
USERS = [f"u{i}" for i in range(18)]
QUIET = "u18"  # posts no events
ITEMS = [f"i{i}" for i in range(60)]


def give_own_state(folder: Path, number: int) -> Path:
    """Set the state folder of processes that start from now on: a new one, with the bundles of the first."""
    home, first = folder / f"node-{number}", folder / "home"
    own = Layout(home / "shop")
    own.state.mkdir(parents=True)
    own.bundles.symlink_to(Layout(first / "shop").bundles)
    os.environ["HANDSELL_HOME"] = str(home)
    return own.state


def list_gateways(cluster: Cluster) -> dict[str, int]:
    """Map the node of each live gateway to its process."""
    found = list_actors(f"http://{cluster.webui_url}", filters=[("state", "=", "ALIVE")], limit=1_000, detail=True)
    return {one.node_id: one.pid for one in found if one.class_name == "ServeReplica:handsell:Gateway"}


def wait_for_gateways(cluster: Cluster, count: int, without: tuple[int, ...] = ()) -> dict[str, int]:
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        found = list_gateways(cluster)
        if len(found) == count and not set(found.values()) & set(without):
            return found
        time.sleep(0.3)
    raise TimeoutError(f"expected {count} gateways, got {found}")


def ask(url: str, user: str, times: int = 12) -> list[list[str]]:
    """Ask for a user's slate on new connections, which the proxy spreads over the gateways."""
    answers = []
    for _ in range(times):
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"{url}/v1/users/{user}/recommendations?surface=email", timeout=30)
            if answer.status_code == 200 and not answer.json()["degraded"]:
                answers.append([item["item_id"] for item in answer.json()["items"]])
    return answers


def main(toml: str, folder: Path) -> dict:
    config = load_config(toml)
    url = f"http://127.0.0.1:{config.serving.port}"
    one_gateway = {"num_cpus": 2, "object_store_memory": 100 * MIB, "resources": {"gateway": 1}}
    states = [give_own_state(folder, 0)]
    head = {**one_gateway, "include_dashboard": True, "dashboard_port": 0}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    states.append(give_own_state(folder, 1))
    second = cluster.add_node(**one_gateway)
    ray.init(address=cluster.address, log_to_driver=False)
    cloudpickle.register_pickle_by_value(serving_world)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": config.serving.port})
    options = {"num_cpus": 0.2, "resources": {"gateway": 1}}
    gateway = Gateway.options(num_replicas=2, ray_actor_options=options)
    serve.run(bind(gateway, str(config.source), "live", None, None, serving_world.open_rows), name="handsell")
    wait_until_ready(url)
    gateways = wait_for_gateways(cluster, 2)
    before = ask(url, QUIET)
    event = {"user_id": "a new user", "item_id": "i90", "type": "like"}
    httpx.post(f"{url}/v1/events", json={"events": [event]}, timeout=30).raise_for_status()
    warm = [
        not httpx.get(f"{url}/v1/users/a new user/recommendations", timeout=30).json()["cold_start"] for _ in range(12)
    ]
    acknowledged = folder / "acknowledged.txt"
    load = EventLoad(url, USERS, ITEMS, "play", 4, 5, 600.0, "load", resend=True, acknowledged=str(acknowledged))
    process = start_event_load(load)
    time.sleep(2)
    on_head = next(pid for node, pid in gateways.items() if node == ray.get_runtime_context().get_node_id())
    os.kill(on_head, signal.SIGKILL)
    time.sleep(2)
    after_first = ask(url, QUIET)
    again = wait_for_gateways(cluster, 2, without=(on_head,))
    cluster.remove_node(second, allow_graceful=False)
    time.sleep(3)
    after_second = ask(url, QUIET)
    time.sleep(2)
    process.terminate()
    process.wait()
    with closing(open_reader(config)) as reader:
        found = compare_with_store(Ledger(set(acknowledged.read_text().split())), reader)
        slates = Counter(gateway for gateway in reader.read_impressions(0, 10_000)["gateway"])
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()
    return {
        "nodes": len(gateways), "again": len(again), "before": before, "after": [after_first, after_second],
        "warm": warm, "acknowledged": found.acknowledged, "lost": found.lost, "twice": found.twice,
        "gateways in slates": len(slates),
        "files": [sorted(str(p.relative_to(s)) for p in s.rglob("*") if "events" in p.parts) for s in states],
    }  # fmt: skip


if __name__ == "__main__":
    print("nodes:" + json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
