"""Run the jobs on a cluster of three raylets on this machine; print as JSON on which nodes the tasks of each step ran.

A separate program, because a process can connect to one Ray cluster only: python three_nodes.py TOML
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


def start_cluster() -> Cluster:
    """Start a head and two more nodes with two CPUs each, and the dashboard, which lists tasks."""
    head = {"num_cpus": 2, "include_dashboard": True, "dashboard_port": 0, "object_store_memory": 100 * MIB}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(NODES - 1):
        cluster.add_node(num_cpus=2, object_store_memory=100 * MIB)
    cluster.wait_for_nodes()
    return cluster


def count_tasks_by_node(since: set[str]) -> tuple[dict[str, int], set[str]]:
    """Count finished tasks by node, without those in `since`; return the counts and the ids of all tasks so far.

    Only tasks that map data count, not those of Ray itself.
    """
    time.sleep(1.5)  # nodes report their tasks once per second
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
        "features": lambda: feature_tables.compute_feature_tables(config, windows.write_request_keys(config)),
        "train": lambda: (store.apply(), train.train(config)),
    }
    found, known = {}, set()
    for name, step in steps.items():
        step()
        found[name], known = count_tasks_by_node(known)
    print("nodes:" + json.dumps({"alive": sum(node["Alive"] for node in ray.nodes()), "tasks": found}))


if __name__ == "__main__":
    cluster = start_cluster()
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        main(sys.argv[1])
    finally:
        ray.shutdown()
        cluster.shutdown()
