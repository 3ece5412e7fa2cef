"""Peak memory of the driver and of the Ray cluster while the jobs data, features and train run on a large world.

Each step is a separate driver process on a private Ray cluster, as in `make up`. The driver's peak is measured by the
kernel (VmHWM); workers and the rest of the cluster are sampled. Target: driver below 1.5 GiB.

    python -m benchmarks driver_memory --events 20_000_000
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import MIB, write_report
from benchmarks.serving.layouts import free_port
from handsell.config import Config, load_config
from handsell.local import cluster

EVENTS_PER_USER = 159.5  # of the default world: 45 days, three sessions a week
TARGET_MIB = 1536
MIN_FREE_GIB = 4.0  # the benchmark ends the step if the machine has less memory left
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
epochs = 1  # more epochs take hours on few cores, and no more memory
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
    """Highest memory use while one step ran, MiB."""

    driver: float = 0.0
    children: float = 0.0  # sum over all processes that the driver started
    worker: float = 0.0  # the largest process of the cluster
    worker_name: str = ""  # Ray task or actor that it ran
    cluster: float = 0.0  # proportional set size of all processes
    aborted: str = ""


def main() -> None:
    options = _parse_options()
    folder = Path(tempfile.mkdtemp(prefix="handsell-bench-", dir=options.folder))
    os.environ["HANDSELL_HOME"] = str(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the cluster is stopped, too
    rows: list[dict[str, Any]] = []
    head = None
    try:
        config = _config(options, folder)
        head = cluster.start(config)
        for step in options.steps:
            rows.append(_measure(step, config, head))
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
    write_report("driver_memory", rows, about, options.json)
    print(f"largest driver {worst:,.0f} MiB, target {TARGET_MIB:,} MiB: {'met' if met else 'not met'}")
    sys.exit(0 if met else 1)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks driver_memory", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--events", type=int, default=20_000_000, help="approximate number (default 20_000_000)")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 2, help="CPUs of the private cluster")
    parser.add_argument("--steps", nargs="+", default=["data", "features", "apply", "train"])
    parser.add_argument("--folder", type=Path, default=None, help="for the state (10 GB at 20 M events)")
    parser.add_argument("--keep", action="store_true", help="keep the state folder")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    return parser.parse_args()


def _config(options: argparse.Namespace, folder: Path) -> Config:
    users = max(round(options.events / EVENTS_PER_USER), 10)
    text = TOML.format(
        users=users, items=options.items, artists=max(options.items // 10, 1), per_partition=2_000,
        partitions=max(4, options.events // 1_000_000), cpus=options.cpus, gcs_port=free_port(),
        dashboard_port=free_port(),
    )  # fmt: skip
    path = folder / "big.toml"
    path.write_text(text)
    return load_config(path)


def _measure(step: str, config: Config, head: cluster.RayHead) -> dict[str, Any]:
    """Run `handsell STEP` in a new process and measure its memory."""
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
            process.kill()  # has no effect unless the benchmark itself is interrupted
        watcher.join(timeout=10)
    text = log.read_text(errors="replace").strip().splitlines()
    if code:
        print("\n".join(text[-25:]), flush=True)
    return {
        "step": step,
        "seconds": time.monotonic() - begun,
        "driver MiB": peaks.driver,
        "children MiB": peaks.children,
        "largest worker MiB": peaks.worker,
        "worker": peaks.worker_name,
        "cluster PSS MiB": peaks.cluster,
        "disk MiB": _disk_usage(config.state),
        "failed": peaks.aborted or ("exit status " + str(code) if code else ""),
        "last line": text[-1][-60:] if text else "",
    }


def _watch(process: subprocess.Popen, head: cluster.RayHead, peaks: Peaks) -> None:
    """Sample the driver every 0.1 s and the cluster every second; end the driver if the machine runs out of memory."""
    driver, root, turn = psutil.Process(process.pid), psutil.Process(head.pid), 0
    while process.poll() is None:
        with suppress(psutil.Error, OSError, ProcessLookupError):
            peaks.driver = max(peaks.driver, _peak_memory(process.pid))
            if turn % 10 == 0:
                peaks.children = max(peaks.children, sum(_rss(p) for p in driver.children(recursive=True)))
                _sample_cluster(root, peaks)
        free = psutil.virtual_memory().available / 2**30
        if free < MIN_FREE_GIB:
            peaks.aborted = f"ended with {free:.1f} GiB free"
            process.kill()
        turn += 1
        time.sleep(0.1)


def _sample_cluster(root: psutil.Process, peaks: Peaks) -> None:
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.Error, OSError):
            total += process.memory_full_info().pss / MIB
            size, name = _rss(process), process.cmdline()[0].split()[0][:36] if process.cmdline() else "?"
            if size > peaks.worker and name.startswith("ray::"):
                peaks.worker, peaks.worker_name = size, name.removeprefix("ray::")
    peaks.cluster = max(peaks.cluster, total)


def _peak_memory(pid: int) -> float:
    """Peak resident memory of the process so far, MiB, from the kernel."""
    status = Path(f"/proc/{pid}/status").read_text()
    lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM"))
    return next((int(words[1]) / 1024 for words in lines), 0.0)  # missing for a process that has just ended


def _rss(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / MIB
    except psutil.Error:
        return 0.0


def _disk_usage(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB


if __name__ == "__main__":
    main()
