"""Measure on this machine what `handsell plan` computes with, and check a plan against a run.

    make up && make down && python -m benchmarks capacity --out calibration.toml      # three minutes
    handsell plan --qps 200 --users 1000000 --items 50000 --p99-ms 200 --calibration calibration.toml
    python -m benchmarks capacity --check calibration.toml       # another minute, a fresh service

One replica of each stage behind HAProxy, on a copy of the deployment's state. First the capacity with closed loops,
then an open loop at `--shares` of it: CPU of each stage's process, latency, then memory, CPU of events, and bytes of
rows in stores of their own. The check asks for the highest rate at which the calibration says that p99 holds, runs
it on a fresh service, and compares cores in use, p99 and memory: exit status 1 beyond 30 %.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import psutil
import tomli_w

from benchmarks.capacity.serving_costs import measure_load, measure_replicas, sum_pss
from benchmarks.capacity.store_sizes import measure_online_user, measure_stores
from benchmarks.events.event_load import EventLoad, run_event_load
from benchmarks.events.event_run import choose_items, copy_deployment
from benchmarks.report import RESULTS, describe_machine, write_report
from benchmarks.serving.graph_processes import GraphProcesses
from benchmarks.serving.layouts import GRAPH, RunningService, ServingLayout, start_layout
from benchmarks.serving.load_generator import Load, measure_capacity
from benchmarks.serving.smoke import sample_users
from handsell.bundles.opening import open_bundles
from handsell.capacity.calibration import STAGES, CapacityCalibration, read_calibration
from handsell.capacity.plan import choose_load
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config, load_config
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout
from handsell.maintenance.files import measure_folder

CLIENTS, CAPACITY_S, EVENTS_S, WARM_S = 24, 8.0, 5.0, 6.0
DECADE_MS = 1.5  # more for ten times the items: 9.5, 10.0 and 12.7 ms at 8 000, 60 000 and 1 000 000 (docs/serving.md)
ROWS = ("qps", "p50_ms", "p99_ms", "cpu_ms", "other_cpu_ms")  # of a load
TOLERANCE = 0.3


@contextmanager
def start_service(config: Config) -> Iterator[tuple[RunningService, list[str], Path]]:
    """Start one warm replica of each stage on a copy of the state; yields it, users, and a folder for files."""
    one_each = dict.fromkeys(GRAPH, 1)
    with copy_deployment(config) as (copied, folder):
        layout = ServingLayout("capacity", "graph", "haproxy", min_replicas=one_each, is_fixed=True)
        with start_layout(layout, copied, folder) as service:
            GraphProcesses(service).wait_for(one_each)
            users = sample_users(config, 500)
            measure_capacity(service.url, users, folder, CLIENTS, WARM_S)
            yield service, users, folder


def calibrate(config: Config, shares: list[float], seconds: float) -> dict[str, Any]:
    """The content of a calibration file; prints each load."""
    layout, machine = Layout(config.state), describe_machine()
    store = open_bundles(config)
    bundle = store.local_path(str(store.live()))
    items, users = (len(Vocabulary.load(layout.catalog / name)) for name in ("items", "users"))
    with start_service(config) as (service, asking, folder):
        capacity = measure_capacity(service.url, asking, folder, CLIENTS, CAPACITY_S)
        print(f"capacity {capacity:.1f} requests/s", flush=True)
        load = Load(service.url, asking, folder)
        loads = []
        for share in shares:
            loads.append(measure_load(service, load, share * capacity, seconds))
            print({name: round(value, 1) for name, value in loads[-1].items() if name != "cpu_ms"}, flush=True)
        load.stop()
        memory = measure_replicas(service, service.config.state.resolve())
        event_ms = measure_events(service, config, asking)
    stores = {**measure_stores(), "online_user_bytes": measure_online_user(config), "event_cpu_ms": event_ms}
    return {
        "measured": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
        "machine": str(machine.get("cpu") or machine.get("processor")), "cores": psutil.cpu_count() or 1,
        "catalog": {
            "items": items, "users": users, "bundle_mib": measure_folder(bundle) / 2**20,
            "candidates_ms_per_decade": DECADE_MS,
        },
        "loads": [{name: one[name] for name in ROWS} for one in loads],
        "memory": memory, "stores": stores,
    }  # fmt: skip


def measure_events(service: RunningService, config: Config, users: list[str]) -> float:
    """CPU ms of an event, in POSTs of ten."""
    kind = next(name for name, kind in config.events.types.items() if kind.seen)
    cpu = service.cpu_s()
    done = run_event_load(
        EventLoad(service.url, users, choose_items(config), kind, connections=4, batch=10, seconds=EVENTS_S, prefix="c")
    )
    return (service.cpu_s() - cpu) / max(done["accepted"], 1) * 1e3


def check(known: CapacityCalibration, config: Config, p99_ms: float, seconds: float) -> list[dict[str, Any]]:
    """Run the rate that the plan gives one replica of each stage; planned and measured figures."""
    planned = choose_load(p99_ms, known)
    with start_service(config) as (service, users, folder):
        load = Load(service.url, users, folder)
        found = measure_load(service, load, planned.qps, seconds)
        load.stop()
        used_mib = sum_pss(service.processes())
    memory = known.memory
    planned_mib = memory.node_mib + sum(memory.private_mib[s] + memory.mapped_mib[s] for s in STAGES)
    cores = found["qps"] * (sum(found["cpu_ms"].values()) + found["other_cpu_ms"]) / 1e3
    pairs = {
        "cores in use": (planned.qps * planned.total_ms / 1e3, cores),
        "p99 ms": (planned.p99_ms, found["p99_ms"]),
        "memory MiB": (planned_mib, used_mib),
        **{f"{stage}, CPU ms": (planned.cpu_ms[stage], found["cpu_ms"][stage]) for stage in STAGES},
    }
    rows = [{"figure": name, "planned": a, "measured": b, "measured/planned": b / a} for name, (a, b) in pairs.items()]
    print(f"{found['qps']:.1f} requests/s, failed {found['failed']}, degraded {found['degraded']}")
    return rows


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks capacity", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--out", type=Path, default=RESULTS / "calibration.toml", help="calibration file to write")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.2, 0.4, 0.6, 0.8], help="of the capacity")
    parser.add_argument("--seconds", type=float, default=12.0, help="at each rate")
    parser.add_argument("--check", type=Path, metavar="FILE", help="check this calibration instead of measuring one")
    parser.add_argument("--p99-ms", type=float, help="of the check; by default between the two middle loads")
    parser.add_argument("--json", type=Path, help="output file of the check")
    options = parser.parse_args()
    if sorted(set(options.shares)) != options.shares or len(options.shares) < 2 or options.shares[0] <= 0:
        parser.error(f"--shares: expected at least two rising shares above 0, got {options.shares}")
    return options


def main() -> None:
    options = _parse_options()
    config = load_config(options.config)
    if options.check is None:
        found = calibrate(config, options.shares, options.seconds)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(tomli_w.dumps(_round(found)), encoding="utf-8")
        read_calibration(options.out)
        print(f"written to {options.out}: handsell plan … --calibration {options.out}")
        return
    try:
        known = read_calibration(options.check)
        middle = len(known.loads) // 2
        p99_ms = options.p99_ms or (known.loads[middle - 1].p99_ms + known.loads[middle].p99_ms) / 2
        rows = check(known, config, p99_ms, options.seconds)
    except HandsellError as error:
        sys.exit(str(error))
    write_report("capacity", rows, {"p99 asked for, ms": p99_ms}, options.json)
    sys.exit(any(abs(row["measured/planned"] - 1) > TOLERANCE for row in rows[:3]))


def _round(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _round(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_round(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
