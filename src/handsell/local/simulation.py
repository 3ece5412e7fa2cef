"""`handsell simulate CONFIG`: a population with known tastes meets each policy for some days, with training in between.

In this process, each policy begins with a copy of one trained deployment, logs to an event store of its own, and is
trained by the code of `handsell train` on a private cluster. Policies that have finished are kept, so that a run that
was stopped goes on with the next one. With a URL, the population asks the running service instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from handsell.config import Config
from handsell.core.errors import ConfigError
from handsell.core.paths import Layout
from handsell.events.store.opening import STORE_VARIABLE
from handsell.jobs.cluster import connect
from handsell.jobs.pipeline import run_pipeline
from handsell.jobs.progress import report_update
from handsell.local.service import open_client, service_url
from handsell.simulation.behavior import Responses
from handsell.simulation.closed_loop import simulate_days
from handsell.simulation.deployed_policy import DeployedPolicy, Kind, with_exploration
from handsell.simulation.http_policy import HttpPolicy
from handsell.simulation.log_listens import draw_log_listens
from handsell.simulation.outcomes import PolicyOutcomes, compute_outcomes
from handsell.simulation.policies import OraclePolicy, Policy, RandomPolicy
from handsell.simulation.population import Population, build_population
from handsell.simulation.population_state import PopulationState
from handsell.simulation.summary import build_report, print_summary, render_page
from handsell.simulation.trace import Trace
from handsell.storage.config import NO_STORAGE, STORAGE_VARIABLE

DEPLOYED: dict[str, Kind] = {
    "popularity": "popularity", "retriever": "retriever", "funnel": "funnel", "exploration": "funnel",
    "inverted": "inverted",
}  # fmt: skip
POLICIES = (*DEPLOYED, "random", "oracle")
SERVICE = "service"  # the policy behind a URL
SHARE, NEW_SHARE = 0.1, 0.05  # of exploration, where the config has none
ISOLATED = {  # a simulation leaves production stores alone
    STORE_VARIABLE: "sqlite", "HANDSELL_ONLINE_STORE": "sqlite", STORAGE_VARIABLE: NO_STORAGE,
}  # fmt: skip
LOOP, RUN = "loop.json", "trace.npz"


@dataclass(frozen=True)
class SimulationOptions:
    """What to simulate."""

    days: int
    users: int
    seed: int = 0
    every: int = 10  # days between trainings; 0: never
    count: int = 10  # items of a slate
    gate: bool = False  # keep the live bundle where a training did not pass the gate


def simulate_policies(
    config: Config, options: SimulationOptions, policies: Sequence[str], console: Console | None = None
) -> dict[str, Any]:
    """Simulate policies in this process, print their table, write report.json and report.html; return the report."""
    _check(config, policies)
    population, log = _build(config, options)
    folder = _find_folder(config, options)
    for name in policies:
        if not (folder / name / RUN).is_file():
            _run_policy(config, options, population, log, folder, name)
    found = {name: compute_outcomes(population, Trace.load(folder / name / RUN)) for name in _list_finished(folder)}
    notes = {name: json.loads((folder / name / LOOP).read_text())["notes"] for name in found}
    return _finish(found, notes, options, folder, console)


def simulate_service(
    config: Config, options: SimulationOptions, url: str, console: Console | None = None
) -> dict[str, Any]:
    """Let the population ask the running service, which logs its events and follows what is trained between days."""
    _check(config, ())
    population, log = _build(config, options)
    folder = _find_folder(config, options) / SERVICE
    with open_client(url or service_url(config), 30.0, is_local=not url) as client:
        policy = HttpPolicy(
            client, population, frozenset(config.events.types), lambda: run_pipeline(config), options.every
        )
        trace = _simulate(population, log, lambda _: policy, options, SERVICE)
    if policy.degraded or policy.unknown:
        report_update(f"{policy.degraded:,} degraded answers, {policy.unknown:,} items that the population lacks")
    folder.mkdir(parents=True, exist_ok=True)
    trace.save(folder / RUN)
    found = {SERVICE: compute_outcomes(population, trace)}
    return _finish(found, {SERVICE: policy.notes}, options, folder, console)


def _check(config: Config, policies: Sequence[str]) -> None:
    if config.data.format != "world":
        raise ConfigError(
            f"{config.source}: expected data.format = world, whose users have known tastes, got "
            f"{config.data.format}: simulate deployments/configs/world.toml or a copy of it"
        )
    if unknown := [name for name in policies if name not in POLICIES]:
        raise ConfigError(f"--policies: expected some of {', '.join(POLICIES)}, got {', '.join(unknown)}")


def _build(config: Config, options: SimulationOptions) -> tuple[Population, tuple[np.ndarray, ...]]:
    population = build_population(config.data.world, options.days, options.users, options.seed)
    return population, draw_log_listens(config.data.world, options.users)


def _find_folder(config: Config, options: SimulationOptions) -> Path:
    """Return the folder of simulations with these settings: another config or another option has another folder."""
    settings = json.dumps([config.model_dump(mode="json"), asdict(options)], sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    return Layout(config.state).state / "simulations" / f"{options.days}d-{options.users}u-{digest}"


def _list_finished(folder: Path) -> list[str]:
    return [name for name in POLICIES if (folder / name / RUN).is_file()]


def _run_policy(
    config: Config, options: SimulationOptions, population: Population, log: tuple[np.ndarray, ...], folder: Path,
    name: str,
) -> None:  # fmt: skip
    """Simulate one policy and save its trace and the outcomes of its trainings."""
    notes: list[str] = []
    if name in DEPLOYED:
        with _isolate(folder / "home"), connect(config.jobs.num_cpus):
            _restore_base(config, folder / "base")
            gate = options.gate and name in ("funnel", "exploration")  # which compares funnels
            policy = DeployedPolicy(
                _configure(config, name), population, DEPLOYED[name], run_pipeline, options.every, gate
            )
            trace, notes = _simulate(population, log, lambda _: policy, options, name), policy.notes
            shutil.rmtree(config.state)
    elif name == "oracle":
        trace = _simulate(population, log, lambda state: OraclePolicy(population, state), options, name)
    else:
        trace = _simulate(population, log, lambda _: RandomPolicy(population), options, name)
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / LOOP).write_text(json.dumps({"notes": notes}, indent=1))
    trace.save(folder / name / RUN)


def _simulate(
    population: Population, log: tuple[np.ndarray, ...], make: Callable[[PopulationState], Policy],
    options: SimulationOptions, name: str,
) -> Trace:  # fmt: skip
    user, item, time = log
    state = PopulationState.start(population, (user, item, time))

    def report(day: int, responses: Sequence[Responses]) -> None:
        visits = sum(map(len, responses))
        mean = np.concatenate([r.satisfaction for r in responses]).mean() if visits else float("nan")
        report_update(f"{name}: day {day + 1} of {population.days}, {visits:,} visits, satisfaction {mean:.3f}")

    return simulate_days(population, state, make(state), options.count, report)


def _configure(config: Config, name: str) -> Config:
    """Return the config of a policy: only the funnels have a ranker, and only `exploration` explores."""
    explores = config.reranking.exploration
    if name == "exploration":
        own = explores.share or explores.new_items.share
        return config if own else with_exploration(config, SHARE, NEW_SHARE)
    config = with_exploration(config, 0.0, 0.0)
    if DEPLOYED[name] in ("popularity", "retriever"):
        config = config.model_copy(update={"ranking": config.ranking.model_copy(update={"enabled": False})})
    return config


@contextmanager
def _isolate(home: Path) -> Iterator[None]:
    """Keep state in another folder, stores in files and jobs on a private cluster, in this process and its workers."""
    changed = {"HANDSELL_HOME": str(home), **ISOLATED, "RAY_ADDRESS": None}
    before = {name: os.environ.get(name) for name in changed}
    _set_variables(changed)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _restore_base(config: Config, base: Path) -> None:
    """Make the state that every policy begins with: the first time by training, later by a copy of that.

    The copy has the paths of the original, which Feast's registry holds.
    """
    shutil.rmtree(config.state, ignore_errors=True)
    if not base.is_dir():
        report_update(f"base: {run_pipeline(_configure(config, 'funnel'))}")
        partial = base.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(config.state, partial)
        partial.rename(base)
        return
    shutil.copytree(base, config.state)


def _finish(
    found: dict[str, PolicyOutcomes], notes: dict[str, list[str]], options: SimulationOptions, folder: Path,
    console: Console | None,
) -> dict[str, Any]:  # fmt: skip
    report = build_report(found, notes, asdict(options))
    (folder / "report.json").write_text(json.dumps(report, indent=1))
    (folder / "report.html").write_text(render_page(report), encoding="utf-8")
    print_summary(report, console or Console())
    report_update(f"report: {folder / 'report.html'}")
    return report
