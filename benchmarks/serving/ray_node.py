"""Start another raylet for a local cluster on loopback: `python -m benchmarks.serving.ray_node GCS_ADDRESS`.

Runs until SIGTERM. Uses the classes of `ray.cluster_utils`, because `ray start` cannot add a node to a head that is
bound to 127.0.0.1.
"""

from __future__ import annotations

import signal
import sys

from ray._private.node import Node
from ray._private.parameter import RayParams

MIB = 2**20


def main(gcs_address: str) -> None:
    parameters = RayParams(
        gcs_address=gcs_address, node_ip_address="127.0.0.1", num_cpus=1, num_gpus=0, object_store_memory=100 * MIB,
        min_worker_port=0, max_worker_port=0, node_manager_port=0, dashboard_agent_listen_port=None,
        include_log_monitor=False,  # type: ignore[arg-type]
    )  # fmt: skip
    node = Node(parameters, head=False, shutdown_at_exit=True, spawn_reaper=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"a node joined {node.gcs_address}", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
