"""Run the serving graph on three raylets on this machine, under load, while a node is killed and replaced.

Prints as JSON where the stages ran and the outcome of the requests. A separate program, because a process can
connect to one Ray cluster only: python serving_nodes.py TOML FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import ray
from benchmarks.serving.load_generator import Load, percentile_ms
from ray import cloudpickle, serve
from ray.cluster_utils import Cluster
from ray.util.state import list_actors

import serving_world
from handsell.config import load_config
from handsell.serving.graph.deployments import (
    CandidatesDeployment,
    EventLogDeployment,
    RankingDeployment,
    RerankingDeployment,
)
from handsell.serving.graph.gateway import Gateway
from handsell.serving.http.app import bind

MIB = 1024**2
STAGES = {"Candidates": CandidatesDeployment, "Ranking": RankingDeployment, "Reranking": RerankingDeployment}
KILLED_STAGE = "Candidates"
RATE = 10.0  # requests per second
LIMIT_S = 60.0


def resource(stage: str) -> dict[str, float]:
    """Custom resource that places a stage, as in deployments/kuberay."""
    return {f"stage_{stage.lower()}": 1}


def start_cluster() -> tuple[Cluster, dict[str, object]]:
    """Start a head for the gateway, the log and re-ranking, and a node for each of the other two stages."""
    head = {
        "num_cpus": 2, "include_dashboard": True, "dashboard_port": 0, "object_store_memory": 100 * MIB,
        "resources": {**resource("Reranking"), "gateway": 2},
    }  # fmt: skip
    cluster = Cluster(initialize_head=True, head_node_args=head)
    return cluster, {stage: add_node(cluster, stage) for stage in ("Candidates", "Ranking")}


def add_node(cluster: Cluster, stage: str):
    return cluster.add_node(num_cpus=1, object_store_memory=100 * MIB, resources=resource(stage))


def build_application(source: str):
    """Build the application of `handsell.serving.http.app`, with each deployment placed on its node."""
    on_head = {"num_cpus": 0.2, "resources": {"gateway": 1}}
    stages = {
        name.lower(): bind(
            deployment.options(ray_actor_options={"num_cpus": 0.2, "resources": resource(name)}), source, "live"
        )
        for name, deployment in STAGES.items()
    }
    log = bind(EventLogDeployment.options(ray_actor_options=on_head), source)
    gateway = Gateway.options(ray_actor_options=on_head)
    return bind(gateway, source, "live", log, stages, serving_world.open_rows)


def find_nodes_of_stages(cluster: Cluster) -> dict[str, list[str]]:
    """Map each stage to the nodes of its live replicas."""
    found: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for actor in list_actors(f"http://{cluster.webui_url}", filters=[("state", "=", "ALIVE")], limit=1_000):
        for stage in STAGES:
            if actor.class_name == f"ServeReplica:handsell:{stage}":
                found[stage].append(actor.node_id)
    return found


def wait_until_ready(url: str) -> None:
    until, last = time.monotonic() + LIMIT_S, "no answer"
    while time.monotonic() < until:
        try:
            answer = httpx.get(f"{url}/readyz", timeout=10)
            if answer.status_code == 200:
                return
            last = answer.text
        except httpx.HTTPError as error:
            last = repr(error)
        time.sleep(0.2)
    raise TimeoutError(f"not ready: {last}")


def measure_recovery(load: Load, since: float) -> float | None:
    """Seconds from `since` until two seconds without a failed or degraded response begin."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        time.sleep(0.2)
        answers = load.responses(since)
        last = max((a.sent for a in answers if not a.ok or a.degraded), default=since)
        if any(a.sent > last + 2 for a in answers):
            return last - since
    return None


def main(toml: str, folder: Path) -> dict:
    config = load_config(toml)
    url = f"http://127.0.0.1:{config.serving.port}"
    cluster, nodes = start_cluster()
    ray.init(address=cluster.address, log_to_driver=False)
    cloudpickle.register_pickle_by_value(serving_world)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": config.serving.port})
    serve.run(build_application(str(config.source)), name="handsell", route_prefix="/")
    wait_until_ready(url)
    load = Load(url, [f"u{i}" for i in range(18)], folder)
    load.set_rate(RATE)
    measure_recovery(load, time.monotonic())
    placed = find_nodes_of_stages(cluster)
    killed = time.monotonic()
    cluster.remove_node(nodes[KILLED_STAGE], allow_graceful=False)
    time.sleep(8)
    back = time.monotonic()
    add_node(cluster, KILLED_STAGE)
    well = measure_recovery(load, back)
    replaced = find_nodes_of_stages(cluster)
    load.set_rate(0)
    answers = [answer for answer in load.stop() if answer.ended > killed]
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()
    return {
        "placed": placed,
        "replaced": replaced,
        "n": len(answers),
        "failed": dict(Counter(f"{a.status} {a.error}" for a in answers if not a.ok)),
        "degraded": dict(Counter(cause for a in answers for cause in a.degraded)),
        "lasting": sum(bool(a.degraded) for a in answers if killed + 4 < a.sent < back) / max(
            sum(killed + 4 < a.sent < back for a in answers), 1
        ),
        "p99_ms": percentile_ms(answers, 99),
        "deadline_ms": config.serving.deadline_ms,
        "full_s": well,
    }  # fmt: skip


if __name__ == "__main__":
    print("nodes:" + json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
