"""The serving graph on three raylets on this machine, each stage on its own, under load while a node dies and returns.

Prints as JSON where the stages ran and what callers saw. Runs as a program of its own, because a process can be
connected to one Ray cluster only: python serving_nodes.py TOML FOLDER
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
VICTIM = "Candidates"
RATE = 10.0  # requests per second
PATIENCE_S = 60.0


def resource(stage: str) -> dict[str, float]:
    """The custom resource by which a stage is placed, as in deployments/kuberay."""
    return {f"stage_{stage.lower()}": 1}


def started() -> tuple[Cluster, dict[str, object]]:
    """A head with the gateway, the log and re-ranking, and a node each for the other two stages."""
    head = {
        "num_cpus": 2, "include_dashboard": True, "dashboard_port": 0, "object_store_memory": 100 * MIB,
        "resources": {**resource("Reranking"), "gateway": 2},
    }  # fmt: skip
    cluster = Cluster(initialize_head=True, head_node_args=head)
    return cluster, {stage: added(cluster, stage) for stage in ("Candidates", "Ranking")}


def added(cluster: Cluster, stage: str):
    return cluster.add_node(num_cpus=1, object_store_memory=100 * MIB, resources=resource(stage))


def application(source: str):
    """The graph on the live bundle, as `handsell.serving.http.app` composes it, with a place for each deployment."""
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


def nodes_of_stages(cluster: Cluster) -> dict[str, list[str]]:
    """Stage → the nodes of its live replicas."""
    found: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for actor in list_actors(f"http://{cluster.webui_url}", filters=[("state", "=", "ALIVE")], limit=1_000):
        for stage in STAGES:
            if actor.class_name == f"ServeReplica:handsell:{stage}":
                found[stage].append(actor.node_id)
    return found


def until_ready(url: str) -> None:
    until, last = time.monotonic() + PATIENCE_S, "no answer"
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


def well_since(load: Load, moment: float) -> float | None:
    """Seconds from a moment until the first of two seconds in which every answer is whole."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        time.sleep(0.2)
        answers = load.responses(moment)
        last = max((a.sent for a in answers if not a.ok or a.degraded), default=moment)
        if any(a.sent > last + 2 for a in answers):
            return last - moment
    return None


def main(toml: str, folder: Path) -> dict:
    config = load_config(toml)
    url = f"http://127.0.0.1:{config.serving.port}"
    cluster, nodes = started()
    ray.init(address=cluster.address, log_to_driver=False)
    cloudpickle.register_pickle_by_value(serving_world)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": config.serving.port})
    serve.run(application(str(config.source)), name="handsell", route_prefix="/")
    until_ready(url)
    load = Load(url, [f"u{i}" for i in range(18)], folder)
    load.set_rate(RATE)
    well_since(load, time.monotonic())
    placed = nodes_of_stages(cluster)
    killed = time.monotonic()
    cluster.remove_node(nodes[VICTIM], allow_graceful=False)
    time.sleep(8)
    back = time.monotonic()
    added(cluster, VICTIM)
    well = well_since(load, back)
    replaced = nodes_of_stages(cluster)
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
