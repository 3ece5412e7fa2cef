"""Run two gateways on two raylets with a state folder each: PostgreSQL, Redis, S3, no shared path but the config.

Prints as JSON what was answered while a bundle was promoted, a gateway was killed and S3 was away. A separate program,
because a process can connect to one Ray cluster only: python shared_nothing_nodes.py TOML FOLDER S3_PID BUNDLE, with
the addresses of the stores in the environment and the deployment published by `publish_world`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import pyarrow as pa
import ray
from benchmarks.serving.load_generator import Load
from ray import serve
from ray.cluster_utils import Cluster

from gateway_nodes import ITEMS, MIB, QUIET, USERS, ask, wait_for_gateways
from handsell.bundles.opening import open_bundles
from handsell.config import load_config
from handsell.core.paths import Layout
from handsell.features.store import open_store
from handsell.features.views import USER_VIEWS, build_views
from handsell.serving.graph.gateway import Gateway
from handsell.serving.http.app import bind
from handsell.storage.published_state import open_published_state
from serving_nodes import wait_until_ready
from serving_world import World, publish_other_bundle, write_world

RATE = 8.0  # requests per second
FOLLOW_S = 60.0


def publish_world(folder: Path, port: int) -> tuple[World, str]:
    """Publish a deployment from this machine: two bundles, the registry and the online rows; return the second one."""
    world = write_world(folder, port)
    other = publish_other_bundle(world, seed=5)
    store = open_store(world.config)
    store.apply()
    tables = {}
    for name in USER_VIEWS:
        schema = build_views(world.config)[name].schema
        rows = [{**row, "user_id": user} for user, row in world.rows.items()]
        tables[name] = pa.Table.from_pylist([{f.name: row.get(f.name) for f in schema} for row in rows], schema)
    store.write_user_rows(tables)
    open_published_state(world.config).push()
    return world, other


def use_own_home(folder: Path, number: int) -> Path:
    """Give processes that start from now on an empty state folder of their own."""
    home = folder / f"node-{number}"
    home.mkdir()
    os.environ["HANDSELL_HOME"] = str(home)
    return home


def wait_for_bundle(url: str, bundle: str) -> float | None:
    """Seconds until twenty answers in a row, of both gateways, are of a bundle; None: not in time."""
    begun, in_a_row = time.monotonic(), 0
    while in_a_row < 20:
        if time.monotonic() - begun > FOLLOW_S:
            return None
        found = httpx.get(f"{url}/v1/users/{QUIET}/recommendations", timeout=30).json()
        in_a_row = in_a_row + 1 if found.get("release", {}).get("bundle") == bundle else 0
        time.sleep(0.05)
    return time.monotonic() - begun


def main(toml: str, folder: Path, s3_pid: int, other: str) -> dict:
    config = load_config(toml)
    url, live = f"http://127.0.0.1:{config.serving.port}", open_bundles(config).live()
    one_gateway = {"num_cpus": 2, "object_store_memory": 100 * MIB, "resources": {"gateway": 1}}
    homes = [use_own_home(folder, 0)]
    cluster = Cluster(
        initialize_head=True, head_node_args={**one_gateway, "include_dashboard": True, "dashboard_port": 0}
    )
    homes.append(use_own_home(folder, 1))
    cluster.add_node(**one_gateway)
    ray.init(address=cluster.address, log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": config.serving.port})
    options = {"num_cpus": 0.2, "resources": {"gateway": 1}}
    gateway = Gateway.options(num_replicas=2, ray_actor_options=options)
    serve.run(bind(gateway, str(config.source), "live", None, None), name="handsell")
    wait_until_ready(url)
    gateways = wait_for_gateways(cluster, 2)
    load = Load(url, USERS, folder)
    load.set_rate(RATE)
    before = ask(url, QUIET)
    event = {"user_id": "a new user", "item_id": ITEMS[-1], "type": "like"}
    httpx.post(f"{url}/v1/events", json={"events": [event]}, timeout=30).raise_for_status()
    warm = [
        not httpx.get(f"{url}/v1/users/a new user/recommendations", timeout=30).json()["cold_start"] for _ in range(12)
    ]
    begun = time.monotonic()
    open_bundles(config).promote(other)
    followed = [wait_for_bundle(url, other)]
    open_bundles(config).rollback()
    followed.append(wait_for_bundle(url, str(live)))
    os.kill(s3_pid, signal.SIGSTOP)  # it accepts connections and does not answer
    time.sleep(3)
    away = ask(url, QUIET)
    killed = next(iter(gateways.values()))
    gone = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    again = wait_for_gateways(cluster, 2, without=(killed,))  # from the cache of its node
    after = ask(url, QUIET)
    os.kill(s3_pid, signal.SIGCONT)
    open_bundles(config).promote(other)
    followed.append(wait_for_bundle(url, other))
    load.set_rate(0)
    answers = [answer for answer in load.stop() if answer.ended > begun]
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()
    return {
        "nodes": len(gateways), "again": len(again), "before": before, "away": away, "after": after, "warm": warm,
        "followed": followed, "n": len(answers),
        "failed": dict(Counter(f"{a.status} {a.error}" for a in answers if not a.ok and a.sent > gone + 1)),
        "failed in flight": sum(not a.ok and a.sent <= gone + 1 for a in answers),
        "degraded": dict(Counter(cause for a in answers for cause in a.degraded)),
        "folders": [sorted(path.name for path in home.glob("shop/*")) for home in homes],
        "cached": [(Layout(home / "shop").bundles / other / "manifest.json").is_file() for home in homes],
    }  # fmt: skip


if __name__ == "__main__":
    print("nodes:" + json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
