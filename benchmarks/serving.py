"""What the inference graph costs beyond its compute: every layout of one live bundle, in one run, on one machine.

    make up && make down && python -m benchmarks serving
    python -m benchmarks serving --config deployments/configs/world.toml --repeats 3 --seconds 10

The load is wrk (a Debian package), closed loops at 1, 8 and 32 connections, on the same cores. The floor is the
funnel as plain calls in one thread, one user at a time. Every figure is the median over the repeats; layouts are
started one after another, each warm before it is measured. CPU is that of all processes of the layout.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and the rest: one thread is what is measured

from benchmarks.layouts import LAYOUTS, Running, running
from benchmarks.machine import report
from benchmarks.serving_smoke import floor, users_of
from handsell.core.config import load_config

SCRIPT = Path(__file__).with_name("load.lua")
WARM_S = 5


def wrk(url: str, users: Path, connections: int, seconds: float) -> dict:
    """One run of the load generator."""
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{max(seconds, 1):.0f}s", "--timeout", "30s"]
    done = subprocess.run(
        [*command, "-s", str(SCRIPT), url], capture_output=True, text=True, check=True,
        env={**os.environ, "HANDSELL_USERS": str(users)},
    )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(service: Running, users: Path, connections: int, seconds: float) -> dict:
    """One repeat, with CPU per request and the mean micro-batch of the gateway that told it."""
    cpu, (asked, trips) = service.cpu_s(), service.batches()
    found = wrk(service.url, users, connections, seconds)
    later, more = service.batches()
    found["cpu ms"] = (service.cpu_s() - cpu) / max(found["n"], 1) * 1e3
    found["batch"] = (later - asked) / (more - trips) if more > trips else None
    return found


def middle(repeats: list[dict]) -> dict:
    """The median of each figure; failures and degraded answers are summed."""
    out = {}
    for key in repeats[0]:
        values = [r[key] for r in repeats if r[key] is not None]
        total = sum if key in ("failed", "degraded", "n") else statistics.median
        out[key] = total(values) if values else None
    return out


def row(name: str, connections: int | str, found: dict) -> dict:
    return {
        "layout": name,
        "c": str(connections),
        "per second": found["per_second"],
        **{f"{p} ms": found[p] for p in ("p50", "p95", "p99")},
        "p99/p50": found["p99"] / found["p50"],
        "CPU ms": found.get("cpu ms"),
        "batch": found.get("batch"),
        "failed": found.get("failed"),
        "degraded": found.get("degraded"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks serving", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--layouts", nargs="+", default=[layout.name for layout in LAYOUTS], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("the load generator wrk is expected on the path: apt-get install wrk")
    config = load_config(asked.config)
    ids = users_of(config, asked.users)
    lowest = floor(config, ids, asked.seconds)
    rows = [row("floor, no HTTP", "–", lowest)]
    with tempfile.TemporaryDirectory(prefix="handsell-serving-") as folder:
        users = Path(folder) / "users.txt"
        users.write_text("\n".join(ids) + "\n")
        for layout in (one for one in LAYOUTS if one.name in asked.layouts):
            print(f"{time.strftime('%H:%M:%S')} {layout.name} …", flush=True)
            with running(layout, config, Path(folder)) as service:
                wrk(service.url, users, 8, WARM_S)
                for connections in asked.connections:
                    repeats = [measure(service, users, connections, asked.seconds) for _ in range(asked.repeats)]
                    rows.append(row(layout.name, connections, middle(repeats)))
                    print(f"  c{connections}: {json.dumps(rows[-1])}", flush=True)
    about = {"bundle": lowest["bundle"], "seconds": asked.seconds, "repeats": asked.repeats, "users": len(ids)}
    report("serving", rows, about, asked.json)
    sys.exit(any(r["failed"] for r in rows))


if __name__ == "__main__":
    main()
