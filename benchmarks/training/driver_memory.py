"""Does a job's driver stay small on a large world? Runs data, features and train for real and watches their memory.

Each step is a driver process of its own on a private Ray cluster, as `make up` runs them. The driver's peak is
the kernel's own figure (VmHWM); workers and the rest of the cluster are sampled. Target: driver below 1.5 GiB.

    python -m benchmarks driver_memory --events 20_000_000
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import MIB, report
from handsell.config import Config, load_config
from handsell.local import cluster

EVENTS_A_USER = 159.5  # of the default world: 45 days, three sessions a week
TARGET_MIB = 1536
LEAST_FREE_GIB = 4.0  # the machine is left at least this much, or the benchmark gives up
TOML = """name = "big"
[data]
format = "world"
[data.world]
users = {users}
items = {items}
artists = {artists}
users_per_partition = {per_partition}
[events.types]
impression = {{ weight = 0.0, seen = false }}
listen = {{ weight = 1.0 }}
skip = {{ weight = -0.5 }}
like = {{ weight = 2.0 }}
save = {{ weight = 3.0 }}
share = {{ weight = 3.0 }}
[features]
item_columns = ["energy", "acousticness", "tempo"]
[surfaces.home]
repeat = "allow"
[retrieval.history]
enabled = true
[retrieval.two_tower]
epochs = 1  # further ones take hours on few cores and no more memory
[serving]
clock = "data"
[jobs]
gcs_port = {gcs_port}
dashboard_port = {dashboard_port}
num_cpus = {cpus}
partitions = {partitions}
"""


@dataclass
class Peaks:
    """The highest that was seen while one step ran, MiB."""

    driver: float = 0.0
    children: float = 0.0  # all processes that the driver started, together
    worker: float = 0.0  # the largest single process of the cluster …
    worker_name: str = ""  # … and what it was doing
    cluster: float = 0.0  # proportional set size of the whole cluster
    gave_up: str = ""


def main() -> None:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="handsell-bench-", dir=options.folder))
    os.environ["HANDSELL_HOME"] = str(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a killed benchmark leaves no cluster behind either
    rows: list[dict[str, Any]] = []
    head = None
    try:
        config = _config(options, folder)
        head = cluster.start(config)
        for step in options.steps:
            rows.append(_measured(step, config, head))
            print({key: value for key, value in rows[-1].items() if value is not None}, flush=True)
            if rows[-1]["failed"]:
                break
    finally:
        if head is not None:
            cluster.stop(config)
            shutil.rmtree(cluster.ray_folder(config), ignore_errors=True)
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    worst = max(row["driver MiB"] for row in rows)
    met = worst < TARGET_MIB and not any(row["failed"] for row in rows)
    about = {"events": options.events, "target_driver_mib": TARGET_MIB, "met": met}
    report("driver_memory", rows, about, options.json)
    print(f"the largest driver took {worst:,.0f} MiB of {TARGET_MIB:,}: {'met' if met else 'NOT met'}")
    sys.exit(0 if met else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks driver_memory", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--events", type=int, default=20_000_000, help="about so many events (default 20_000_000)")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 2, help="CPUs that the private cluster declares")
    parser.add_argument("--steps", nargs="+", default=["data", "features", "apply", "train"])
    parser.add_argument("--folder", type=Path, default=None, help="where the state is put (10 GB at 20 M events)")
    parser.add_argument("--keep", action="store_true", help="leave the state folder for a look")
    parser.add_argument("--json", type=Path, default=None, help="where the figures are written")
    return parser.parse_args()


def _config(options: argparse.Namespace, folder: Path) -> Config:
    users = max(round(options.events / EVENTS_A_USER), 10)
    text = TOML.format(
        users=users, items=options.items, artists=max(options.items // 10, 1), per_partition=2_000,
        partitions=max(4, options.events // 1_000_000), cpus=options.cpus, gcs_port=_free(), dashboard_port=_free(),
    )  # fmt: skip
    path = folder / "big.toml"
    path.write_text(text)
    return load_config(path)


def _measured(step: str, config: Config, head: cluster.RayHead) -> dict[str, Any]:
    """Run `handsell STEP` as a process of its own and watch it."""
    command = [sys.executable, "-m", "handsell", step, str(config.source)]
    log = config.source.with_name(f"{step}.log")
    begun = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, **head.environment, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        peaks = Peaks()
        watcher = threading.Thread(target=_watch, args=(process, head, peaks), daemon=True)
        watcher.start()
        try:
            code = process.wait()
        finally:
            process.kill()  # nothing to do unless the benchmark itself is being stopped
        watcher.join(timeout=10)
    text = log.read_text(errors="replace").strip().splitlines()
    if code:
        print("\n".join(text[-25:]), flush=True)
    return {
        "step": step,
        "seconds": time.monotonic() - begun,
        "driver MiB": peaks.driver,
        "its children MiB": peaks.children,
        "largest worker MiB": peaks.worker,
        "worker": peaks.worker_name,
        "cluster PSS MiB": peaks.cluster,
        "disk MiB": _disk(config.state),
        "failed": peaks.gave_up or ("exit status " + str(code) if code else ""),
        "said": text[-1][-60:] if text else "",
    }


def _watch(process: subprocess.Popen, head: cluster.RayHead, peaks: Peaks) -> None:
    """Driver ten times a second, the cluster every second; ends the driver when the machine runs out of memory."""
    driver, root, turn = psutil.Process(process.pid), psutil.Process(head.pid), 0
    while process.poll() is None:
        with suppress(psutil.Error, OSError, ProcessLookupError):
            peaks.driver = max(peaks.driver, _high_water(process.pid))
            if turn % 10 == 0:
                peaks.children = max(peaks.children, sum(_rss(p) for p in driver.children(recursive=True)))
                _look_at_cluster(root, peaks)
        free = psutil.virtual_memory().available / 2**30
        if free < LEAST_FREE_GIB:
            peaks.gave_up = f"gave up with {free:.1f} GiB free"
            process.kill()
        turn += 1
        time.sleep(0.1)


def _look_at_cluster(root: psutil.Process, peaks: Peaks) -> None:
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.Error, OSError):
            total += process.memory_full_info().pss / MIB
            size, name = _rss(process), process.cmdline()[0].split()[0][:36] if process.cmdline() else "?"
            if size > peaks.worker and name.startswith("ray::"):
                peaks.worker, peaks.worker_name = size, name.removeprefix("ray::")
    peaks.cluster = max(peaks.cluster, total)


def _high_water(pid: int) -> float:
    """The process's peak resident memory so far, MiB, from the kernel."""
    status = Path(f"/proc/{pid}/status").read_text()
    lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM"))
    return next((int(words[1]) / 1024 for words in lines), 0.0)  # none of a process that has just ended


def _rss(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / MIB
    except psutil.Error:
        return 0.0


def _disk(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB


def _free() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
