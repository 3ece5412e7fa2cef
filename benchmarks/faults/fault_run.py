"""What callers see of each fault: the graph on the live bundle under constant load, and one thing broken at a time.

    make up && make down && python -m benchmarks faults
    python -m benchmarks faults --config deployments/configs/world.toml --faults "kill Candidates" "store locked"

Capacity (closed loops) is measured first, load is `--share` of it, open loop, by the clock (open_loop.py). For every
fault: a steady while, the fault, and the time until nothing fails, nothing is degraded and every replica is back.
n, shares and p99 are of all requests that were under way at the fault or sent after it, for `--seconds` at least.
There are two gateways on two raylets, each with a proxy (with --nodes 1 there is one proxy). What is done and what has
to be kept stands in drills.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and the rest

from benchmarks.faults.bundle_variants import Twins
from benchmarks.faults.fault_scenarios import DRILLS, Drill, Scene, clean_up
from benchmarks.faults.fault_targets import Graph
from benchmarks.faults.slo_checks import Seen
from benchmarks.report import report
from benchmarks.serving.layouts import Layout, running
from benchmarks.serving.load_generator import Answer, Load, capacity, p
from benchmarks.serving.smoke import users_of
from handsell.config import load_config

STEADY_S = 5.0
WELL_S = 3.0  # without a bad answer: then it is over
PATIENCE_S = 120.0
REST_S = 100.0  # longer than downscale_delay_s in deployments/serve/graph.yaml
LEAST = {"Gateway": 2, "Candidates": 1, "Ranking": 1, "Reranking": 1, "EventLog": 1}  # replicas that have to be there


def bad(answer: Answer) -> bool:
    return not answer.ok or bool(answer.degraded)


def settle(scene: Scene, since: float = 0.0) -> float | None:
    """When (monotonic s) the last bad answer was sent or the last replica came back; None where it goes on."""
    until, back, short = time.monotonic() + PATIENCE_S, since, False
    while time.monotonic() < until:
        time.sleep(0.25)
        now, counts = time.monotonic(), scene.graph.running()
        missing = any(counts.get(name, 0) < count for name, count in LEAST.items()) or scene.stands_still()
        if short and not missing:
            back = now
        short = missing
        answers = scene.load.answers(since)
        wrong = [answer for answer in answers if bad(answer)]
        well = any(answer.ended > now - 1 for answer in answers)
        if well and not missing and now - max((answer.ended for answer in wrong), default=since) > WELL_S:
            return max([back, *(answer.sent for answer in wrong)])
    return None


def rest(scene: Scene) -> None:
    """Until the replicas that the measurement of capacity called for are gone, where this load does without them."""
    until = time.monotonic() + REST_S
    while scene.graph.running() != LEAST and time.monotonic() < until:
        time.sleep(1)


def play(drill: Drill, scene: Scene, seconds: float, deadline_ms: float) -> tuple[Seen, list[Answer]]:
    """One drill under load; what was seen of it, and of the steady while before it."""
    settle(scene, time.monotonic())
    scene.notes.clear()
    scene.notes["replicas before"] = scene.graph.running()
    steady_from = time.monotonic()
    time.sleep(STEADY_S)
    with drill.inject(scene):
        time.sleep(seconds if drill.holds else 0.5)
        scene.notes |= _within(scene)
    ended = time.monotonic() if drill.holds else scene.begun
    full = settle(scene, ended)
    time.sleep(max(0.0, scene.begun + seconds - time.monotonic()))
    last = time.monotonic() - 1
    time.sleep(1.5)
    answers = [a for a in scene.load.answers(steady_from) if a.sent < last]
    steady, after = [a for a in answers if a.ended <= scene.begun], [a for a in answers if a.ended > scene.begun]
    clean_up(scene)
    if drill.name == "bundles":
        scene.notes["mixed"] = scene.bundles.mixed(answers)[:5]
    return Seen(scene.begun, after, deadline_ms, None if full is None else full - ended, dict(scene.notes)), steady


def _within(scene: Scene) -> dict:
    """Whether it was answered while the fault lasted."""
    lasting = scene.load.answers(scene.begun)
    return {"while it lasts": {"n": len(lasting), "degraded": sum(bool(a.degraded) for a in lasting)}}


def row(drill: Drill, seen: Seen, steady: Sequence[Answer]) -> dict:
    broken = [wrong for promise in drill.promises if (wrong := promise(seen))]
    return {
        "fault": drill.name,
        "n": len(seen.answers),
        "2xx %": 100 * seen.share(lambda answer: answer.ok),
        "degraded %": 100 * seen.share(lambda answer: bool(answer.degraded)),
        "shed %": 100 * seen.share(lambda answer: answer.shed),
        "p99 before": p(steady, 99),
        "p99 ms": seen.p99(),
        "full after s": seen.full_s,
        "held": "; ".join(broken) or "yes",
    }


def detail(drill: Drill, seen: Seen) -> dict:
    """For the JSON: causes, what failed, and what the drill noted."""
    failures = Counter(f"{a.status} {a.error}"[:160] for a in seen.failed())
    return {
        "fault": drill.name,
        "degraded": dict(Counter(cause for answer in seen.answers for cause in answer.degraded)),
        "failures": dict(failures.most_common(8)),
        "last failure s": max((a.sent - seen.begun for a in seen.failed()), default=None),
        "notes": seen.notes,
    }


def drilled(drills: Sequence[Drill], scene: Scene, seconds: float, deadline_ms: float) -> tuple[list, list]:
    rows, details = [], []
    for drill in drills:
        seen, steady = play(drill, scene, seconds, deadline_ms)
        rows.append(row(drill, seen, steady))
        details.append(detail(drill, seen))
        print(f"{time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:.1f} {rows[-1]}\n  {details[-1]}", flush=True)
    return rows, details


def main() -> None:
    names = [drill.name for drill in DRILLS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks faults", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--faults", nargs="+", default=names, metavar="NAME", help=f"of: {', '.join(names)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="watched at least; how long a lasting fault lasts")
    parser.add_argument("--share", type=float, default=0.5, help="of capacity, as constant load")
    parser.add_argument("--rate", type=float, help="requests per second, instead of a share of measured capacity")
    parser.add_argument("--callers", type=int, default=16, help="closed loops by which capacity is measured")
    parser.add_argument("--ingress", choices=("plain", "haproxy"), default="plain")
    parser.add_argument("--nodes", type=int, choices=(1, 2), default=2, help="raylets; each has a gateway and a proxy")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if unknown := set(asked.faults) - set(names):
        sys.exit(f"--faults are expected to be of {', '.join(names)}; got {', '.join(sorted(unknown))}")
    drills = [drill for drill in DRILLS if drill.name in asked.faults]
    config = load_config(asked.config)
    users, layout = (
        users_of(config, asked.users),
        Layout("graph", "graph", asked.ingress, None, False, {"Gateway": 2}, asked.nodes),
    )
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="handsell-faults-")))
        service = stack.enter_context(running(layout, config, folder))
        Graph(service).wait_for(LEAST)
        most = capacity(service.url, users, folder, asked.callers, 5.0) and capacity(
            service.url, users, folder, asked.callers, max(asked.seconds / 2, 5.0)
        )  # the first is to warm up
        rate = asked.rate or asked.share * most
        print(f"capacity {most:.1f} answers per second; load {rate:.1f}", flush=True)
        scene = Scene(Graph(service), Load(service.url, users, folder, asked.seed), rate)
        stack.callback(scene.load.stop)
        if "bundles" in asked.faults:
            scene.bundles = Twins.of(config)
            stack.callback(scene.bundles.remove)
        scene.load.rate(rate)
        rest(scene)
        rows, details = drilled(drills, scene, asked.seconds, config.serving.deadline_ms)
    about = {
        "bundle": scene.bundles.first if scene.bundles else "live", "seed": asked.seed, "capacity": most, "rate": rate,
        "seconds": asked.seconds, "deadline_ms": config.serving.deadline_ms, "ingress": asked.ingress,
    }  # fmt: skip
    report("faults", rows, {**about, "details": details}, asked.json)
    sys.exit(any(row["held"] != "yes" for row in rows))


if __name__ == "__main__":
    main()
