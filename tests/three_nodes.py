"""The jobs on a cluster of three raylets on this machine; prints which nodes each step's tasks ran on, as JSON.

Runs as a program of its own, because a process can be connected to one Ray cluster only: python three_nodes.py TOML
"""

from __future__ import annotations

import json
import sys
import time

import ray
from ray.cluster_utils import Cluster
from ray.util.state import list_tasks

NODES = 3
MIB = 1024**2


def started() -> Cluster:
    """A head and two more nodes, two CPUs each; the head's dashboard answers questions about tasks."""
    head = {"num_cpus": 2, "include_dashboard": True, "dashboard_port": 0, "object_store_memory": 100 * MIB}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(NODES - 1):
        cluster.add_node(num_cpus=2, object_store_memory=100 * MIB)
    cluster.wait_for_nodes()
    return cluster


def nodes_of_tasks(since: set[str]) -> tuple[dict[str, int], set[str]]:
    """Node → finished tasks that are not in `since`, and the ids of all tasks so far.

    Only what maps data or trains counts: not Ray's own bookkeeping.
    """
    time.sleep(1.5)  # nodes report what they ran once a second
    tasks = [task for task in list_tasks(limit=10_000, detail=True) if task.state == "FINISHED"]
    new = [task for task in tasks if task.task_id not in since and is_work(task)]
    counts: dict[str, int] = {}
    for task in new:
        counts[task.node_id] = counts.get(task.node_id, 0) + 1
    return counts, {task.task_id for task in tasks}


def is_work(task) -> bool:
    return task.type == "NORMAL_TASK" and task.name.startswith("Map(")


def main(toml: str) -> None:
    from handsell.config import load_config
    from handsell.features.store import open_store
    from handsell.jobs.features import feature_tables
    from handsell.jobs.ingest import ingest
    from handsell.jobs.train import train, windows

    config = load_config(toml)
    store = open_store(config)
    steps = {
        "data": lambda: ingest.prepare(config),
        "features": lambda: feature_tables.compute(config, windows.write_request_keys(config)),
        "train": lambda: (store.apply(), train.train(config)),
    }
    found, known = {}, set()
    for name, step in steps.items():
        step()
        found[name], known = nodes_of_tasks(known)
    print("nodes:" + json.dumps({"alive": sum(node["Alive"] for node in ray.nodes()), "tasks": found}))


if __name__ == "__main__":
    cluster = started()
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        main(sys.argv[1])
    finally:
        ray.shutdown()
        cluster.shutdown()
