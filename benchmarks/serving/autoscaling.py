"""How fast each stage of the graph scales with its own load: replicas over time, before, during and after a load step.

    make up && make down && python -m benchmarks autoscaling
    python -m benchmarks autoscaling --seconds 40 --step 3
    python -m benchmarks autoscaling --by-load         without the look at the cores that graph.yaml adds

Load is open loop (open_loop.py): `--share` of the capacity that closed loops get of the graph as it starts, then
`--step` times that, then the first again. Settings are those of deployments/serve/graph.yaml. For each deployment:
replicas, and the seconds after the step began until one more was wanted and ran, and after it ended until one was given
up. "–" means that it never came to that: its own load did not ask for it, or all that it may have ran already.
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

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and the rest

from benchmarks.faults.fault_scenarios import watched
from benchmarks.faults.fault_targets import Graph
from benchmarks.report import report
from benchmarks.serving.layouts import Layout, running
from benchmarks.serving.load_generator import Answer, Load, capacity, p
from benchmarks.serving.smoke import users_of
from handsell.config import load_config

PHASES = ("before", "step", "after")


@dataclass
class Timeline:
    """Replicas by deployment as Serve's status told them, each change once: (monotonic s, wanted, running)."""

    graph: Graph
    changes: dict[str, list[tuple[float, int, int]]] = field(default_factory=dict)

    def see(self, counts: dict[str, int]) -> None:
        now, wanted = time.monotonic(), self.graph.wanted()
        for name, count in counts.items():
            seen = self.changes.setdefault(name, [])
            if not seen or seen[-1][1:] != (wanted.get(name, count), count):
                seen.append((now, wanted.get(name, count), count))

    def at(self, name: str, moment: float) -> tuple[int, int]:
        """(wanted, running) then."""
        past = [change for change in self.changes[name] if change[0] <= moment] or self.changes[name][:1]
        return past[-1][1:]

    def first(self, name: str, since: float, place: int, rises: bool) -> float | None:
        """Seconds until `wanted` (1) or `running` (2) first went up, or down."""
        last = self.at(name, since)[place - 1]
        for change in self.changes[name]:
            if change[0] <= since:
                continue
            if change[place] != last and (change[place] > last) == rises:
                return change[0] - since
            last = change[place]
        return None

    def most(self, name: str) -> int:
        return max(change[2] for change in self.changes[name])


def rows(timeline: Timeline, begun: float, ended: float) -> list[dict]:
    return [
        {
            "deployment": name,
            "before": timeline.at(name, begun)[1],
            "most": timeline.most(name),
            "wanted after s": timeline.first(name, begun, 1, True),
            "running after s": timeline.first(name, begun, 2, True),
            "down after s": timeline.first(name, ended, 2, False),
            "at the end": timeline.changes[name][-1][2],
        }
        for name in timeline.changes
    ]


def answered(answers: Sequence[Answer], moments: Sequence[float], rate: Sequence[float]) -> list[dict]:
    """What callers saw in each phase."""
    out = []
    for phase, since, until, per_second in zip(PHASES, moments, moments[1:], rate, strict=False):
        those = [answer for answer in answers if since <= answer.sent < until]
        taken = [answer for answer in those if answer.ok]
        out.append(
            {
                "phase": phase,
                "offered per s": per_second,
                "n": len(those),
                "2xx per s": len(taken) / (until - since),
                "shed %": 100 * sum(answer.shed for answer in those) / max(len(those), 1),
                "failed %": 100 * sum(not (a.ok or a.shed) for a in those) / max(len(those), 1),
                "degraded %": 100 * sum(bool(answer.degraded) for answer in those) / max(len(those), 1),
                "causes": ", ".join(sorted({cause for answer in those for cause in answer.degraded})) or "–",
                "p50 ms": p(taken, 50),
                "p99 ms": p(taken, 99),
            }
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks autoscaling", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the step lasts")
    parser.add_argument(
        "--after", type=float, default=90.0, help="seconds watched after it: downscale_delay_s and more"
    )
    parser.add_argument("--share", type=float, default=0.25, help="of capacity, before and after the step")
    parser.add_argument("--step", type=float, default=5.0, help="times that load")
    parser.add_argument("--callers", type=int, default=16, help="closed loops by which capacity is measured")
    parser.add_argument("--ingress", choices=("plain", "haproxy"), default="plain")
    parser.add_argument("--by-load", action="store_true", help="scale by load alone, also when the cores are full")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    config = load_config(asked.config)
    users = users_of(config, asked.users)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="handsell-autoscaling-")))
        layout = Layout("graph", "graph", asked.ingress, by_load=asked.by_load)
        service = stack.enter_context(running(layout, config, folder))
        graph = Graph(service)
        most = capacity(service.url, users, folder, asked.callers, 6.0)
        load, timeline, low = Load(service.url, users, folder, asked.seed), Timeline(graph), asked.share * most
        stack.callback(load.stop)
        load.rate(low)
        until = time.monotonic() + asked.after
        while any(count > 1 for count in graph.running().values()) and time.monotonic() < until:
            time.sleep(1)  # until what the capacity called for is given up
        with watched(graph, timeline.see):
            moments = [time.monotonic()]
            time.sleep(10)
            for rate, seconds in ((asked.step * low, asked.seconds), (low, asked.after)):
                moments.append(time.monotonic())
                load.rate(rate)
                time.sleep(seconds)
            moments.append(time.monotonic())
        answers = load.stop()
    about = {
        "seed": asked.seed, "capacity": most, "seconds": asked.seconds, "ingress": asked.ingress,
        "policy": "load" if asked.by_load else "load and cores",
        "changes": {
            name: [(round(at - moments[1], 1), *counts) for at, *counts in seen]
            for name, seen in timeline.changes.items()
        },
    }  # fmt: skip
    callers = answered(answers, moments, (low, asked.step * low, low))
    report("autoscaling", rows(timeline, *moments[1:3]), about, asked.json, {"answers": callers})
    sys.exit(any(row["failed %"] for row in callers))


if __name__ == "__main__":
    main()
