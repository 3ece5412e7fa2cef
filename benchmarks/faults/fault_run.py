"""Responses of the serving graph under constant load while one part of it fails.

    make up && make down && python -m benchmarks faults
    python -m benchmarks faults --config deployments/configs/world.toml --faults "kill Candidates" "store locked"

    python -m benchmarks faults --layout shared-nothing

Capacity is measured first, with closed loops; the load is `--share` of it, open loop. Each scenario has a steady
phase, the fault, and the time until nothing fails, nothing is degraded and every replica runs again. n, shares and p99
are of all requests that were in flight when the fault began or were sent later, for at least `--seconds`. Two gateways
run on two raylets, behind one HAProxy (with --ingress plain, behind a proxy on each raylet). With the layout
`shared-nothing` each raylet has a state folder of its own, empty at first, and PostgreSQL, Redis and S3 hold
everything; they fail, too.
fault_scenarios.py has the scenarios and their checks.
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

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

from benchmarks.faults.bundle_variants import BundleVariants
from benchmarks.faults.fault_scenarios import (
    SCENARIOS,
    STORE_SCENARIOS,
    FaultScenario,
    ScenarioContext,
    resume_stopped_process,
)
from benchmarks.faults.slo_checks import Observation
from benchmarks.faults.store_servers import publish_deployment, start_stores
from benchmarks.report import write_report
from benchmarks.serving.graph_processes import GraphProcesses
from benchmarks.serving.layouts import ServingLayout, start_layout
from benchmarks.serving.load_generator import Load, Response, measure_capacity, percentile_ms
from benchmarks.serving.smoke import sample_users
from handsell.config import load_config

STEADY_S = 5.0
HEALTHY_S = 3.0  # without a bad response: recovered
RECOVERY_LIMIT_S = 120.0
DOWNSCALE_LIMIT_S = 100.0  # longer than downscale_delay_s in deployments/serve/graph.yaml
MIN_REPLICAS = {"Gateway": 2, "Candidates": 1, "Ranking": 1, "Reranking": 1, "EventLog": 1, "StreamProcessor": 1}


def is_bad(response: Response) -> bool:
    return not response.ok or bool(response.degraded)


def wait_for_recovery(context: ScenarioContext, since: float = 0.0) -> float | None:
    """Return when the last bad response was sent or the last replica started (monotonic s); None if not in time."""
    until, complete, was_incomplete = time.monotonic() + RECOVERY_LIMIT_S, since, False
    while time.monotonic() < until:
        time.sleep(0.25)
        now, counts = time.monotonic(), context.graph.count_running()
        missing = any(counts.get(name, 0) < count for name, count in context.min_replicas.items())
        incomplete = missing or context.has_stopped_process()
        if was_incomplete and not incomplete:
            complete = now
        was_incomplete = incomplete
        responses = context.load.responses(since)
        bad = [response for response in responses if is_bad(response)]
        answers = any(response.ended > now - 1 for response in responses)
        if answers and not incomplete and now - max((r.ended for r in bad), default=since) > HEALTHY_S:
            return max([complete, *(response.sent for response in bad)])
    return None


def wait_for_downscaling(context: ScenarioContext) -> None:
    """Wait until the replicas that the capacity measurement added are gone, if the load allows it."""
    until = time.monotonic() + DOWNSCALE_LIMIT_S
    while context.graph.count_running() != context.min_replicas and time.monotonic() < until:
        time.sleep(1)


def run_scenario(
    scenario: FaultScenario, context: ScenarioContext, seconds: float, deadline_ms: float
) -> tuple[Observation, list[Response]]:
    """Run one scenario under load; return what was observed of the fault, and the responses of the steady phase."""
    wait_for_recovery(context, time.monotonic())
    context.notes.clear()
    context.notes["replicas before"] = context.graph.count_running()
    steady_from = time.monotonic()
    time.sleep(STEADY_S)
    with scenario.inject(context):
        time.sleep(seconds if scenario.lasts else 0.5)
        during = context.load.responses(context.begun)
        context.notes["during the fault"] = {"n": len(during), "degraded": sum(bool(r.degraded) for r in during)}
        context.notes["degraded"] = context.notes["during the fault"]["degraded"]
    ended = time.monotonic() if scenario.lasts else context.begun
    recovered = wait_for_recovery(context, ended)
    time.sleep(max(0.0, context.begun + seconds - time.monotonic()))
    last = time.monotonic() - 1
    time.sleep(1.5)
    responses = [r for r in context.load.responses(steady_from) if r.sent < last]
    steady = [r for r in responses if r.ended <= context.begun]
    later = [r for r in responses if r.ended > context.begun]
    resume_stopped_process(context)
    if scenario.name == "bundles" and context.bundles is not None:
        context.notes["mixed"] = context.bundles.find_mixed(responses)[:5]
    recovered_s = None if recovered is None else recovered - ended
    return Observation(context.begun, later, deadline_ms, recovered_s, dict(context.notes)), steady


def build_row(scenario: FaultScenario, observed: Observation, steady: Sequence[Response]) -> dict:
    violations = [violation for check in scenario.checks if (violation := check(observed))]
    return {
        "fault": scenario.name,
        "n": len(observed.responses),
        "2xx %": 100 * observed.share(lambda response: response.ok),
        "degraded %": 100 * observed.share(lambda response: bool(response.degraded)),
        "shed %": 100 * observed.share(lambda response: response.shed),
        "p99 before": percentile_ms(steady, 99),
        "p99 ms": observed.p99_ms(),
        "recovered after s": observed.recovered_s,
        "held": "; ".join(violations) or "yes",
    }


def build_details(scenario: FaultScenario, observed: Observation) -> dict:
    """Causes, failures and notes of a scenario, for the JSON file."""
    failures = Counter(f"{r.status} {r.error}"[:160] for r in observed.failed())
    return {
        "fault": scenario.name,
        "degraded": dict(Counter(cause for response in observed.responses for cause in response.degraded)),
        "failures": dict(failures.most_common(8)),
        "last failure s": max((r.sent - observed.begun for r in observed.failed()), default=None),
        "notes": observed.notes,
    }


def run_scenarios(
    scenarios: Sequence[FaultScenario], context: ScenarioContext, seconds: float, deadline_ms: float
) -> tuple[list, list]:
    rows, details = [], []
    for scenario in scenarios:
        observed, steady = run_scenario(scenario, context, seconds, deadline_ms)
        rows.append(build_row(scenario, observed, steady))
        details.append(build_details(scenario, observed))
        print(f"{time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:.1f} {rows[-1]}\n  {details[-1]}", flush=True)
    return rows, details


def _parse_options() -> argparse.Namespace:
    names = [scenario.name for scenario in (*SCENARIOS, *STORE_SCENARIOS)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks faults", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--faults", nargs="+", default=names, metavar="NAME", help=f"any of: {', '.join(names)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of a fault that lasts; minimum observed")
    parser.add_argument("--share", type=float, default=0.5, help="constant load as a share of the capacity")
    parser.add_argument("--rate", type=float, help="requests per second, instead of a share of the measured capacity")
    parser.add_argument("--clients", type=int, default=16, help="closed loops that measure the capacity")
    parser.add_argument("--ingress", choices=("plain", "haproxy"), default="haproxy")
    parser.add_argument("--nodes", type=int, choices=(1, 2), default=2, help="raylets; each has a gateway")
    parser.add_argument("--layout", choices=("shared-folder", "shared-nothing"), default="shared-folder")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    if options.layout == "shared-folder":
        options.faults = [name for name in options.faults if name not in {one.name for one in STORE_SCENARIOS}]
    if unknown := set(options.faults) - set(names):
        sys.exit(f"--faults: expected any of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    options = _parse_options()
    scenarios = [scenario for scenario in (*SCENARIOS, *STORE_SCENARIOS) if scenario.name in options.faults]
    config = load_config(options.config)
    users = sample_users(config, options.users)
    min_replicas, stores, second_home = MIN_REPLICAS, None, ""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="handsell-faults-")))
        if options.layout == "shared-nothing":
            stores = stack.enter_context(start_stores(folder))
            config, second_home = publish_deployment(config, folder), str(folder / "node-2")
            min_replicas = {name: count for name, count in MIN_REPLICAS.items() if name != "EventLog"}
        layout = ServingLayout(
            "graph", "graph", options.ingress, min_replicas={"Gateway": 2}, nodes=options.nodes, second_home=second_home
        )
        service = stack.enter_context(start_layout(layout, config, folder))
        graph = GraphProcesses(service)
        graph.wait_for(min_replicas)
        measure_capacity(service.url, users, folder, options.clients, 5.0)  # warm up
        capacity = measure_capacity(service.url, users, folder, options.clients, max(options.seconds / 2, 5.0))
        rate = options.rate or options.share * capacity
        print(f"capacity {capacity:.1f} responses per second; load {rate:.1f}", flush=True)
        load = Load(service.url, users, folder, options.seed)
        context = ScenarioContext(graph, load, rate, min_replicas, stores=stores)
        stack.callback(context.load.stop)
        if "bundles" in options.faults:
            context.bundles = BundleVariants.create(service.config)
            stack.callback(context.bundles.remove)
        context.load.set_rate(rate)
        wait_for_downscaling(context)
        rows, details = run_scenarios(scenarios, context, options.seconds, config.serving.deadline_ms)
    about = {
        "bundle": context.bundles.live if context.bundles else "live", "seed": options.seed, "capacity": capacity,
        "rate": rate, "seconds": options.seconds, "deadline_ms": config.serving.deadline_ms,
        "ingress": options.ingress, "layout": options.layout,
    }  # fmt: skip
    write_report("faults", rows, {**about, "details": details}, options.json)
    sys.exit(any(row["held"] != "yes" for row in rows))


if __name__ == "__main__":
    main()
