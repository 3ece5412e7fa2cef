"""Disk, memory and latency of a deployment over cycles of traffic and training, with retention.

    handsell up benchmarks/configs/soak.toml && handsell down benchmarks/configs/soak.toml
    python -m benchmarks soak                       # 5 million events and 1 million impressions in ten cycles
    python -m benchmarks soak --scale 0.02 --cycles 4

Each cycle appends events and slates through the running service's writer, runs `handsell train` (it compacts, reads
the new events, trains, promotes and cleans) beside the service, then measures: MB by folder and of Ray's session, rows
of the store, memory of the processes (PSS, MiB), p50 and p99 of requests, one after another. The first row is before
any traffic. Runs on a copy of the state; everything shares the machine's cores.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import httpx
import numpy as np
import psutil

from benchmarks.events.event_run import copy_deployment
from benchmarks.report import MIB, measure_cpu_speed, write_report
from benchmarks.serving.layouts import RunningService, ServingLayout, start_layout
from benchmarks.serving.smoke import sample_users
from benchmarks.soak.feed import Feed
from handsell.config import Config, load_config
from handsell.core.paths import Layout, find_ray_folder
from handsell.events.store.opening import open_reader
from handsell.local import cluster
from handsell.maintenance.files import measure_folder

CONFIG = Path("benchmarks/configs/soak.toml")
EVENTS, IMPRESSIONS, SHOWN = 5_000_000, 1_000_000, 10
REQUESTS, WARM = 200, 50
SETTLE_S = 5.0
TRAINING = ("data", "interactions", "features", "snapshot", "catalog", "feast", "steps", "runs")


def measure_disk(config: Config) -> dict[str, float]:
    """Return MB of the event store, of what grows with it, and of everything."""
    sizes: dict[str, int] = {path.name: measure_folder(path) for path in config.state.iterdir() if path.is_dir()}
    named = {
        "store MB": sizes.get("events", 0),
        "compacted MB": sizes.get("compacted", 0),
        "training MB": sum(sizes.get(name, 0) for name in TRAINING),
        "bundles MB": sizes.get("bundles", 0),
        "logs MB": sizes.get("logs", 0) + measure_folder(find_ray_folder(config.state) / "session_latest" / "logs"),
    }
    return {name: size / 1e6 for name, size in named.items()}


def measure_memory(service: RunningService) -> dict[str, float]:
    """Return PSS in MiB: by replica of the gateway and the writer, of the other replicas, and of Ray itself."""
    found: dict[str, float] = defaultdict(float)
    for process in service.processes():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            title = " ".join(process.cmdline())
            found[_name_process(title)] += process.memory_full_info().pss / MIB
    return {f"{name} MiB": found[name] for name in ("gateway", "writer", "other replicas", "Ray")}


def _name_process(title: str) -> str:
    if "ServeReplica:handsell:Gateway" in title:
        return "gateway"
    if "ServeReplica:handsell:EventLog" in title:
        return "writer"
    return "other replicas" if "ServeReplica" in title else "Ray"


def measure_requests(service: RunningService, users: list[str]) -> dict[str, float]:
    """Return p50 and p99 (ms) of requests by one client; the first WARM are not counted."""
    taken = []
    with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as client:
        for n in range(WARM + REQUESTS):
            begun = time.perf_counter()
            client.get(f"/v1/users/{users[n % len(users)]}/recommendations").raise_for_status()
            taken.append((time.perf_counter() - begun) * 1e3)
    p50, p99 = np.percentile(taken[WARM:], (50, 99)).tolist()
    return {"p50 ms": p50, "p99 ms": p99}


def measure(service: RunningService, users: list[str]) -> dict[str, Any]:
    with closing(open_reader(service.config)) as reader:
        rows = reader.measure()
    return {
        "stored events": rows["events"], "stored slates": rows["slates"], **measure_disk(service.config),
        **measure_memory(service), **measure_requests(service, users), "speed": measure_cpu_speed(),
    }  # fmt: skip


def run_cycle(service: RunningService, feed: Feed) -> dict[str, float]:
    """Append the traffic and train; return the seconds of both."""
    head = cluster.find_running(service.config)
    assert head is not None, "the service runs on it"
    environment = {**os.environ, **head.environment}
    begun = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.soak.feeder"]
    subprocess.run(command, input=feed.to_json(), text=True, env=environment, check=True)
    fed = time.perf_counter()
    log = Layout(service.config.state).logs / "train.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as output:
        command = [sys.executable, "-m", "handsell", "train", str(service.config.source)]
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    if done.returncode:
        raise SystemExit(f"handsell train failed:\n{log.read_text()[-3_000:]}")
    return {"feed s": fed - begun, "turn s": time.perf_counter() - fed}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--scale", type=float, default=1.0, help="share of 5 million events and 1 million impressions")
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--topology", choices=("graph", "fused"), default="fused")
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    config = load_config(options.config)
    users = sample_users(config, 500)
    events = int(EVENTS * options.scale / options.cycles)
    slates = int(IMPRESSIONS / SHOWN * options.scale / options.cycles)
    rows: list[dict[str, Any]] = []
    with copy_deployment(config) as (copied, folder):
        layout = ServingLayout(options.topology, options.topology)
        with start_layout(layout, copied, folder) as service:
            begun = {"cycle": 0, "events so far": 0, "feed s": 0.0, "turn s": 0.0}
            rows.append({**begun, **measure(service, users)})
            for cycle in range(1, options.cycles + 1):
                feed = Feed(str(service.config.source), events, slates, (cycle - 1) * max(events, slates))
                seconds = run_cycle(service, feed)
                time.sleep(SETTLE_S)
                rows.append({"cycle": cycle, "events so far": cycle * events, **seconds, **measure(service, users)})
                print({name: round(value, 1) for name, value in rows[-1].items()}, flush=True)
    about = {"scale": options.scale, "topology": options.topology, "impressions": slates * SHOWN * options.cycles}
    write_report("soak", rows, about, options.json)


if __name__ == "__main__":
    main()
