"""Steps of a deployment on several raylets of this machine: python -m benchmarks.scale.nodes TOML NODES CPUS STEP …

A separate program, because a process can connect to one Ray cluster only. It prints a line of JSON when a step begins
and when it ends.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.cluster_utils import Cluster

from benchmarks.protocols.resources import read_peak_mib, reset_peak_memory
from benchmarks.report import MIB
from handsell.bundles.opening import open_bundles
from handsell.config import Config, load_config
from handsell.core.paths import Layout
from handsell.features.store import open_store
from handsell.jobs.features.steps import compute_features
from handsell.jobs.ingest.ingest import prepare
from handsell.jobs.train.train import train

STORE = 300 * MIB  # object store of a raylet: the jobs exchange files
NOT_MODELS = ("report.json", "report.html", "snapshot/snapshot.json", "config.json")  # times, and the number of CPUs


def main() -> None:
    toml, nodes, cpus, *steps = sys.argv[1:]
    config = load_config(Path(toml))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the raylets are stopped, too
    cluster = start_cluster(int(nodes), int(cpus))
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        for step in steps:
            run_step(config, step)
    finally:
        ray.shutdown()
        cluster.shutdown()


def start_cluster(nodes: int, cpus: int) -> Cluster:
    head = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(nodes - 1):
        cluster.add_node(num_cpus=cpus, object_store_memory=STORE)
    cluster.wait_for_nodes()
    return cluster


def run_step(config: Config, step: str) -> None:
    run, digest = STEPS[step]
    print("scale:" + json.dumps({"event": "begin", "step": step}), flush=True)
    reset_peak_memory()
    begun = time.monotonic()
    run(config)
    seconds, driver_mib = round(time.monotonic() - begun, 1), round(read_peak_mib())
    disk = sum(path.stat().st_size for path in config.state.rglob("*") if path.is_file()) / MIB
    said = {"event": "end", "seconds": seconds, "driver_mib": driver_mib, "disk_mib": round(disk)}
    print("scale:" + json.dumps({**said, "result": digest(config)}), flush=True)


def hash_tables(*folders: Path) -> str:
    """Hash the rows of all Parquet files, file by file; how they are compressed does not count."""
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.parquet")):
            total.update(str(path.relative_to(folder)).encode())
            for batch in pq.ParquetFile(path).iter_batches(batch_size=65_536):
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, batch.schema.remove_metadata()) as out:
                    out.write_batch(batch.replace_schema_metadata(None))
                total.update(sink.getvalue())
    return total.hexdigest()


def hash_bundle(config: Config) -> str:
    """Hash the files of the newest bundle, without those that contain times; the manifest has their hashes."""
    store = open_bundles(config)
    files = store.show(store.list()[-1]).files
    named = sorted((name, entry.sha256) for name, entry in files.items() if name not in NOT_MODELS)
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


STEPS: dict[str, tuple[Callable[[Config], Any], Callable[[Config], str]]] = {
    "data": (prepare, lambda config: hash_tables(Layout(config.state).interactions)),
    "features": (compute_features, lambda config: hash_tables(Layout(config.state).features)),
    "apply": (lambda config: open_store(config).apply(), lambda config: ""),
    "train": (train, hash_bundle),
}

if __name__ == "__main__":
    main()
