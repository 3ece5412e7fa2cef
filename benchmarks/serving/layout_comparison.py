"""Latency, throughput and CPU of each serving layout of one live bundle, in one run on one machine.

    make up && make down && python -m benchmarks serving
    python -m benchmarks serving --config deployments/configs/world.toml --repeats 3 --seconds 10
    python -m benchmarks serving --set ml-100k --keep FOLDER      cut and train the set first, unless FOLDER has it

wrk (a Debian package) sends the load from the same cores, in closed loops over 1, 8 and 32 connections, for users drawn
at random. Every run measures an empty FastAPI application first; a table has the ratios to it. The floor is the funnel
as plain calls in one thread, one user at a time. Layouts run one after another, each after a warm-up;
figures are medians over the repeats. `repeated`: a few users ask again and again, whose answers are given again; in all
other layouts every answer is computed. CPU is that of all processes of the layout. `speed` is million iterations per
second of an empty Python loop just before the measurement: compare only rows of similar speed.
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

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported: the floor uses one thread

from benchmarks.quality.served_quality import find_data, start_service
from benchmarks.quality.served_tables import CONFIG, SETS, write_tables
from benchmarks.report import measure_cpu_speed, write_report
from benchmarks.serving.layouts import EMPTY, LAYOUTS, RunningService, start_layout
from benchmarks.serving.smoke import STAGES, measure_floor, measure_parallel_floors, sample_users
from handsell.bundles.opening import open_bundles
from handsell.config import Config, load_config

SCRIPT = Path(__file__).with_name("load.lua")
WARM_S = 5
REPEATED = 50  # users of the layouts that give answers again


def require_wrk() -> None:
    if shutil.which("wrk") is None:
        sys.exit("expected the load generator wrk on the PATH: apt-get install wrk")


def run_wrk(url: str, users: Path, connections: int, seconds: float) -> dict:
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{max(seconds, 1):.0f}s", "--timeout", "30s"]
    done = subprocess.run(
        [*command, "-s", str(SCRIPT), url], capture_output=True, text=True, check=True,
        env={**os.environ, "HANDSELL_USERS": str(users)},
    )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(service: RunningService, users: Path, connections: int, seconds: float) -> dict:
    """Measure one repeat, with CPU per request, and mean batch size and stage time of the gateway replica read."""
    speed = measure_cpu_speed()
    cpu, before = service.cpu_s(), service.read_counters()
    found = run_wrk(service.url, users, connections, seconds)
    after = service.read_counters()
    found["cpu ms"] = (service.cpu_s() - cpu) / max(found["n"], 1) * 1e3
    found["speed"] = speed
    found["batch"] = compute_mean(before, after, "handsell_batch_size", "")
    for stage in STAGES:
        stage_s = compute_mean(before, after, "handsell_stage_seconds", f'{{stage="{stage}"}}')
        found[stage] = None if stage_s is None else 1e3 * stage_s
    return found


def compute_mean(before: dict[str, float], after: dict[str, float], name: str, labels: str) -> float | None:
    """Mean of a histogram's observations between two reads; None without any, or if different replicas answered."""
    keys = (f"{name}_sum{labels}", f"{name}_count{labels}")
    total, count = (after.get(key, 0.0) - before.get(key, 0.0) for key in keys)
    return total / count if count > 0 else None


def combine(repeats: list[dict]) -> dict:
    """Median of each figure; counts are summed."""
    combined = {}
    for key in repeats[0]:
        values = [r[key] for r in repeats if r[key] is not None]
        aggregate = sum if key in ("failed", "degraded", "n") else statistics.median
        combined[key] = aggregate(values) if values else None
    return combined


def build_row(name: str, connections: int | str, found: dict) -> dict:
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


def build_stage_row(name: str, connections: int | str, found: dict) -> dict:
    """ms that the gateway waits for each stage; for the floor, the stage's computing time."""
    return {"layout": name, "c": str(connections), **{stage: found.get(stage) for stage in STAGES}}


def build_ratio_row(name: str, connections: int, found: dict, empty: dict) -> dict:
    """Throughput and p50 as multiples of those of the empty application at the same number of connections."""
    return {
        "layout": name,
        "c": str(connections),
        "throughput ×": found["per_second"] / empty["per_second"],
        "p50 ×": found["p50"] / empty["p50"],
    }


def prepare_set(name: str, folder: Path) -> Config:
    """Cut a data set into tables and train on them, unless the folder has a live bundle; return the config."""
    folder, path = folder.resolve(), folder.resolve() / CONFIG
    os.environ["HANDSELL_HOME"] = str(folder / "home")
    if not path.is_file():
        write_tables(name, find_data(), folder)
    if open_bundles(load_config(path)).live() is None:
        with start_service(folder, folder, "fused"):
            pass
    return load_config(path)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks serving", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--set", choices=SETS, help="a data set as own tables instead of --config")
    parser.add_argument("--keep", type=Path, help="folder of the tables and the state of --set")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    names = [layout.name for layout in LAYOUTS]
    parser.add_argument("--layouts", nargs="+", default=names, choices=names, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    if options.set and not options.keep:
        parser.error("--set needs --keep, the folder of its tables and its state")
    return options


def main() -> None:
    options = _parse_options()
    require_wrk()
    config = prepare_set(options.set, options.keep) if options.set else load_config(options.config)
    ids = sample_users(config, options.users)
    speed = {"speed": measure_cpu_speed()}
    floor = measure_floor(config, ids, options.seconds) | speed
    two_floors = measure_parallel_floors(config, 2, options.seconds, options.users) | speed
    rows = [build_row("floor, no HTTP", "–", floor), build_row("two floors in parallel", "–", two_floors)]
    stages = [build_stage_row("floor, no HTTP", "–", floor["stages"])]
    ratios: list[dict] = []
    empty: dict[int, dict] = {}  # by connections
    with tempfile.TemporaryDirectory(prefix="handsell-serving-") as folder:
        every, few = Path(folder) / "users.txt", Path(folder) / "few_users.txt"
        every.write_text("\n".join(ids) + "\n")
        few.write_text("\n".join(ids[:REPEATED]) + "\n")
        for layout in (one for one in LAYOUTS if one is EMPTY or one.name in options.layouts):
            print(f"{time.strftime('%H:%M:%S')} {layout.name} …", flush=True)
            with start_layout(layout, config, Path(folder)) as service:
                users = few if layout.reuses else every
                run_wrk(service.url, users, 8, WARM_S)
                for connections in options.connections:
                    repeats = [measure(service, users, connections, options.seconds) for _ in range(options.repeats)]
                    found = combine(repeats)
                    rows.append(build_row(layout.name, connections, found))
                    stages.append(build_stage_row(layout.name, connections, found))
                    beside = empty.setdefault(connections, found)
                    ratios.append(build_ratio_row(layout.name, connections, found, beside))
                    print(f"  c{connections}: {json.dumps(rows[-1])}", flush=True)
    about = {"bundle": floor["bundle"], "seconds": options.seconds, "repeats": options.repeats, "users": len(ids)}
    others = {"ms that the gateway waits for each stage": stages, "ratios to the empty application": ratios}
    write_report("serving", rows, about, options.json, others)
    sys.exit(any(r["failed"] for r in rows))


if __name__ == "__main__":
    main()
