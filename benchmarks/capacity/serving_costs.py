"""CPU by stage, latency and memory of a running graph at constant rates of requests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serving.graph_processes import GraphProcesses
from benchmarks.serving.layouts import RunningService
from benchmarks.serving.load_generator import Load, percentile_ms
from benchmarks.serving.replica_memory import measure_memory
from handsell.capacity.calibration import STAGES

SETTLE_S = 3.0


def measure_load(service: RunningService, load: Load, qps: float, seconds: float) -> dict[str, Any]:
    """Send requests at a constant rate; the values of one `[[loads]]`, and the failed and degraded answers."""
    graph = GraphProcesses(service)
    load.set_rate(qps)
    time.sleep(SETTLE_S)
    begun, total, stages = time.monotonic(), service.cpu_s(), _read_cpu(graph)
    time.sleep(seconds)
    took, total = time.monotonic() - begun, service.cpu_s() - total
    used = {stage: after - stages[stage] for stage, after in _read_cpu(graph).items()}
    time.sleep(1)  # those in flight
    answers = [a for a in load.responses(begun) if a.sent < begun + took]
    count, ok = len(answers), [a for a in answers if a.ok]
    if not ok:
        raise SystemExit(f"no 2xx response at {qps:.1f} requests/s: check that the service is ready")
    return {
        "qps": count / took, "p50_ms": percentile_ms(ok, 50), "p99_ms": percentile_ms(ok, 99),
        "cpu_ms": {stage: 1e3 * value / count for stage, value in used.items()},
        "other_cpu_ms": max(1e3 * (total - sum(used.values())) / count, 0.0),
        "failed": count - len(ok), "degraded": sum(bool(a.degraded) for a in ok),
    }  # fmt: skip


def _read_cpu(graph: GraphProcesses) -> dict[str, float]:
    return {stage: sum(map(_cpu_s, graph.find(stage.capitalize()))) for stage in STAGES}


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def measure_replicas(service: RunningService, state: Path) -> dict[str, Any]:
    """MiB by stage, of one replica each: own, and mapped bundle files; and of all other processes together."""
    graph = GraphProcesses(service)
    found = {stage: graph.find_oldest(stage.capitalize()) for stage in STAGES}
    of_stage = {stage: measure_memory(process, state) for stage, process in found.items()}
    replicas = {process.pid for stage in STAGES for process in graph.find(stage.capitalize())}
    others = [process for process in service.processes() if process.pid not in replicas]
    return {
        "private_mib": {stage: found["private"] for stage, found in of_stage.items()},
        "mapped_mib": {stage: found["files mapped"] for stage, found in of_stage.items()},
        "node_mib": sum_pss(others),
    }


def sum_pss(processes: Sequence[psutil.Process]) -> float:
    """MiB of processes; pages that several use count once."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # a process that has just ended
            total += process.memory_full_info().pss
    return total / 2**20
