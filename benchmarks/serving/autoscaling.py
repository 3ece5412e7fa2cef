"""Replicas of each deployment of the graph before, during and after a load step.

    make up && make down && python -m benchmarks autoscaling
    python -m benchmarks autoscaling --seconds 40 --step 3
    python -m benchmarks autoscaling --by-load         without graph.yaml's policy that also requires free cores

The load is open loop: `--share` of the capacity measured with closed loops, then `--step` times that, then the first
rate again, with the settings of deployments/serve/graph.yaml. For each deployment: replicas, seconds from the start of
the step until another replica was wanted and until it ran, and seconds from its end until one was removed. "–": it did
not happen, because the deployment's own load did not require it or its maximum already ran.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

from benchmarks.report import write_report
from benchmarks.serving.graph_processes import GraphProcesses
from benchmarks.serving.layouts import ServingLayout, start_layout
from benchmarks.serving.load_generator import Load, Response, measure_capacity, percentile_ms
from benchmarks.serving.smoke import sample_users
from handsell.config import load_config

PHASES = ("before", "step", "after")
STEADY_S = 10
WANTED, RUNNING = 1, 2  # columns of a change


@dataclass
class Timeline:
    """Changes of the replica counts, by deployment: (monotonic s, wanted, running)."""

    graph: GraphProcesses
    changes: dict[str, list[tuple[float, int, int]]] = field(default_factory=dict)

    def observe(self, counts: dict[str, int]) -> None:
        now, wanted = time.monotonic(), self.graph.count_targets()
        for name, count in counts.items():
            seen = self.changes.setdefault(name, [])
            if not seen or seen[-1][1:] != (wanted.get(name, count), count):
                seen.append((now, wanted.get(name, count), count))

    def state_at(self, name: str, time_s: float) -> tuple[float, int, int]:
        """The last change before a time, or the first of all."""
        return ([change for change in self.changes[name] if change[0] <= time_s] or self.changes[name][:1])[-1]

    def first_change(self, name: str, since: float, column: int, rises: bool) -> float | None:
        """Seconds until the WANTED or RUNNING count first rose, or fell."""
        last = self.state_at(name, since)[column]
        for change in self.changes[name]:
            if change[0] <= since:
                continue
            if change[column] != last and (change[column] > last) == rises:
                return change[0] - since
            last = change[column]
        return None


def build_rows(timeline: Timeline, begun: float, ended: float) -> list[dict]:
    return [
        {
            "deployment": name,
            "before": timeline.state_at(name, begun)[RUNNING],
            "most": max(change[RUNNING] for change in changes),
            "wanted after s": timeline.first_change(name, begun, WANTED, True),
            "running after s": timeline.first_change(name, begun, RUNNING, True),
            "down after s": timeline.first_change(name, ended, RUNNING, False),
            "at the end": changes[-1][RUNNING],
        }
        for name, changes in timeline.changes.items()
    ]


def summarize_phases(responses: Sequence[Response], times: Sequence[float], rates: Sequence[float]) -> list[dict]:
    """Summarize the responses of each phase."""
    rows = []
    for phase, since, until, rate in zip(PHASES, times, times[1:], rates, strict=False):
        sent = [response for response in responses if since <= response.sent < until]
        ok = [response for response in sent if response.ok]
        rows.append(
            {
                "phase": phase,
                "offered per s": rate,
                "n": len(sent),
                "2xx per s": len(ok) / (until - since),
                "shed %": 100 * sum(response.shed for response in sent) / max(len(sent), 1),
                "failed %": 100 * sum(not (r.ok or r.shed) for r in sent) / max(len(sent), 1),
                "degraded %": 100 * sum(bool(response.degraded) for response in sent) / max(len(sent), 1),
                "causes": ", ".join(sorted({cause for response in sent for cause in response.degraded})) or "–",
                "p50 ms": percentile_ms(ok, 50),
                "p99 ms": percentile_ms(ok, 99),
            }
        )
    return rows


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks autoscaling", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--seconds", type=float, default=30.0, help="duration of the step")
    parser.add_argument(
        "--after", type=float, default=90.0, help="seconds observed after it; at least downscale_delay_s"
    )
    parser.add_argument("--share", type=float, default=0.25, help="of the capacity, before and after the step")
    parser.add_argument("--step", type=float, default=5.0, help="factor of the load step")
    parser.add_argument("--clients", type=int, default=16, help="closed loops that measure the capacity")
    parser.add_argument("--ingress", choices=("plain", "haproxy"), default="haproxy")
    parser.add_argument("--by-load", action="store_true", help="scale by load alone, even without free cores")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="output file")
    return parser.parse_args()


def main() -> None:
    options = _parse_options()
    config = load_config(options.config)
    users = sample_users(config, options.users)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="handsell-autoscaling-")))
        layout = ServingLayout("graph", "graph", options.ingress, by_load=options.by_load)
        service = stack.enter_context(start_layout(layout, config, folder))
        graph = GraphProcesses(service)
        capacity = measure_capacity(service.url, users, folder, options.clients, 6.0)
        load, timeline, low = Load(service.url, users, folder, options.seed), Timeline(graph), options.share * capacity
        stack.callback(load.stop)
        load.set_rate(low)
        until = time.monotonic() + options.after
        while any(count > 1 for count in graph.count_running().values()) and time.monotonic() < until:
            time.sleep(1)  # the capacity measurement may have added replicas
        with graph.watch(timeline.observe):
            times = [time.monotonic()]
            time.sleep(STEADY_S)
            for rate, seconds in ((options.step * low, options.seconds), (low, options.after)):
                times.append(time.monotonic())
                load.set_rate(rate)
                time.sleep(seconds)
            times.append(time.monotonic())
        responses = load.stop()
    about = {
        "seed": options.seed, "capacity": capacity, "seconds": options.seconds, "ingress": options.ingress,
        "policy": "load" if options.by_load else "load and cores",
        "changes": {
            name: [(round(at - times[1], 1), *counts) for at, *counts in seen]
            for name, seen in timeline.changes.items()
        },
    }  # fmt: skip
    phases = summarize_phases(responses, times, (low, options.step * low, low))
    write_report("autoscaling", build_rows(timeline, *times[1:3]), about, options.json, {"responses": phases})
    sys.exit(any(row["failed %"] for row in phases))


if __name__ == "__main__":
    main()
