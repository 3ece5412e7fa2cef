"""What the inference graph costs beyond its compute: every layout of one live bundle, in one run, on one machine.

    make up && make down && python -m benchmarks serving
    python -m benchmarks serving --config deployments/configs/world.toml --repeats 3 --seconds 10

The load is wrk (a Debian package), closed loops at 1, 8 and 32 connections, on the same cores. The floor is the
funnel as plain calls in one thread, one user at a time. Every figure is the median over the repeats; layouts are
started one after another, each warm before it is measured. CPU is that of all processes of the layout. `speed` is how
fast a bare loop of Python ran just before (million turns a second): where it differs, so did the processor.
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

from benchmarks.report import report, speed
from benchmarks.serving.layouts import LAYOUTS, Running, running
from benchmarks.serving.smoke import STAGES, floor, floors_at_once, users_of
from handsell.config import load_config

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
    """One repeat, with CPU per request, and the mean micro-batch and stage waits of the gateway that told them."""
    pace = speed()
    cpu, before = service.cpu_s(), service.counts()
    found = wrk(service.url, users, connections, seconds)
    after = service.counts()
    found["cpu ms"] = (service.cpu_s() - cpu) / max(found["n"], 1) * 1e3
    found["speed"] = pace
    found["batch"] = mean(before, after, "handsell_batch_size", "")
    for stage in STAGES:
        seconds_each = mean(before, after, "handsell_stage_seconds", f'{{stage="{stage}"}}')
        found[stage] = None if seconds_each is None else 1e3 * seconds_each
    return found


def mean(before: dict[str, float], after: dict[str, float], name: str, labels: str) -> float | None:
    """Mean of what a histogram observed in between; None where nothing was, or another gateway answered."""
    keys = (f"{name}_sum{labels}", f"{name}_count{labels}")
    total, count = (after.get(key, 0.0) - before.get(key, 0.0) for key in keys)
    return total / count if count > 0 else None


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
        "speed": found.get("speed"),
        "failed": found.get("failed"),
        "degraded": found.get("degraded"),
    }


def waits(name: str, connections: int | str, found: dict) -> dict:
    """What the gateway waits for each stage, a trip; the floor's is the stage's compute."""
    return {"layout": name, "c": str(connections), **{stage: found.get(stage) for stage in STAGES}}


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
    pace = {"speed": speed()}
    lowest = floor(config, ids, asked.seconds) | pace
    twice = floors_at_once(config, 2, asked.seconds, asked.users) | pace
    rows = [row("floor, no HTTP", "–", lowest), row("two floors at once", "–", twice)]
    stages = [waits("floor, no HTTP", "–", lowest["stages"])]
    with tempfile.TemporaryDirectory(prefix="handsell-serving-") as folder:
        users = Path(folder) / "users.txt"
        users.write_text("\n".join(ids) + "\n")
        for layout in (one for one in LAYOUTS if one.name in asked.layouts):
            print(f"{time.strftime('%H:%M:%S')} {layout.name} …", flush=True)
            with running(layout, config, Path(folder)) as service:
                wrk(service.url, users, 8, WARM_S)
                for connections in asked.connections:
                    repeats = [measure(service, users, connections, asked.seconds) for _ in range(asked.repeats)]
                    found = middle(repeats)
                    rows.append(row(layout.name, connections, found))
                    stages.append(waits(layout.name, connections, found))
                    print(f"  c{connections}: {json.dumps(rows[-1])}", flush=True)
    about = {"bundle": lowest["bundle"], "seconds": asked.seconds, "repeats": asked.repeats, "users": len(ids)}
    report("serving", rows, about, asked.json, {"ms that the gateway waits for a stage, a trip": stages})
    sys.exit(any(r["failed"] for r in rows))


if __name__ == "__main__":
    main()
