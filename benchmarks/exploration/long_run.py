"""Exploration, new items' share and fatigue on and off: what they cost and bring over simulated days.

Each variant answers the same simulated population from a copy of one trained deployment of the world in this process,
with the same random numbers; its slates and events go to an event store of its own. The bundle stays as it is: what
exploration teaches the next bundle is measured by `handsell simulate`, which trains in between. Intervals are paired
by listener.

    python -m benchmarks exploration deployments/configs/world.toml
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import write_report
from handsell.config import Config, load_config
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.reranking.config import ExplorationConfig, FatigueConfig, NewItemsConfig, RerankingConfig
from handsell.simulation.closed_loop import simulate_days
from handsell.simulation.deployed_policy import DeployedPolicy
from handsell.simulation.log_listens import draw_log_listens
from handsell.simulation.outcomes import PolicyOutcomes, compare_outcomes, compute_outcomes
from handsell.simulation.population import Population, build_population
from handsell.simulation.population_state import PopulationState
from handsell.simulation.trace import Trace

OFF = "off"
FRESH_DAYS = NewItemsConfig().days
TOTALS = ("satisfaction", "value", "clicks", "active_at_end", "fresh_share", "fresh_tracks", "gini", "diversity")


def explore(share: float, new: float = 0.0, choice: str = "thompson", **new_items: Any) -> dict[str, Any]:
    settings = NewItemsConfig(share=new, **new_items)
    return {"exploration": ExplorationConfig(share=share, choice=choice, new_items=settings)}


VARIANTS: dict[str, dict[str, Any]] = {
    OFF: {},
    "new 3 %": explore(0.0, 0.03),
    "new 6 %": explore(0.0, 0.06),
    "thompson 0.3": explore(0.3),
    "uniform 0.3": explore(0.3, choice="uniform"),
    "thompson 0.1, new 3 %": explore(0.1, 0.03),
    "fatigue 0.1": {"fatigue": FatigueConfig(weight=0.1)},
    "fatigue 0.3": {"fatigue": FatigueConfig(weight=0.3)},
    "fatigue 0.05": {"fatigue": FatigueConfig(weight=0.05)},
    "fatigue 0.1, new 3 %": {**explore(0.0, 0.03), "fatigue": FatigueConfig(weight=0.1)},
}


def change(config: Config, settings: dict[str, Any]) -> Config:
    plain = {"exploration": ExplorationConfig(), "fatigue": FatigueConfig()}
    reranking: RerankingConfig = config.reranking.model_copy(update=plain | settings)
    return config.model_copy(update={"reranking": reranking})


def simulate(config: Config, population: Population, users: int) -> PolicyOutcomes:
    """Simulate all days with an empty event store."""
    store = Layout(config.state).event_log.parent
    shutil.rmtree(store, ignore_errors=True)
    policy = DeployedPolicy(config, population, "funnel", lambda _: "", every=0)
    state = PopulationState.start(population, draw_log_listens(config.data.world, users))
    trace = simulate_days(population, state, policy)
    outcomes = compute_outcomes(population, trace)
    return replace(outcomes, totals=outcomes.totals | measure_fresh_tracks(population, trace))


def measure_fresh_tracks(population: Population, trace: Trace) -> dict[str, float]:
    """Return the share of impressions of tracks at most FRESH_DAYS old, and the share of these that were shown."""
    published = population.tracks.published
    item, time = trace.responses.item, trace.visits.time[:, None]
    fresh = (item >= 0) & (published[np.maximum(item, 0)] >= time - FRESH_DAYS * DAY_US)
    end = population.start + population.days * DAY_US
    there = (published >= population.start - FRESH_DAYS * DAY_US) & (published < end)
    return {
        "fresh_share": float(fresh.sum() / (item >= 0).sum()),
        "fresh_tracks": len(np.unique(item[fresh])) / max(int(there.sum()), 1),
    }


def build_rows(found: dict[str, PolicyOutcomes]) -> list[dict[str, Any]]:
    rows = []
    for name, outcomes in found.items():
        row: dict[str, Any] = {"variant": name, **{total: outcomes.totals[total] for total in TOTALS}}
        against = compare_outcomes({OFF: found[OFF], name: outcomes}, name) if name != OFF else {}
        for figure in ("satisfaction", "value"):
            compared = against.get((figure, OFF))
            parts = (compared.difference, compared.low, compared.high) if compared else (0.0, 0.0, 0.0)
            row |= dict(zip((f"Δ {figure}", f"low {figure}", f"high {figure}"), parts, strict=True))
        rows.append(row)
    return rows


def run(path: Path, days: int, users: int, seed: int, names: Sequence[str]) -> list[dict[str, Any]]:
    config = load_config(path)
    population, found = build_population(config.data.world, days, users, seed), {}
    with tempfile.TemporaryDirectory() as home:
        shutil.copytree(config.state, Path(home) / config.name, ignore=shutil.ignore_patterns("events", "simulations"))
        os.environ["HANDSELL_HOME"] = home
        for name in names:
            print(name, flush=True)
            found[name] = simulate(change(load_config(path), VARIANTS[name]), population, users)
    return build_rows(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    options = parser.parse_args()
    names = list(dict.fromkeys([OFF, *options.variants]))
    try:
        rows = run(options.config, options.days, options.users, options.seed, names)
    except HandsellError as error:
        sys.exit(str(error))
    about = {"config": str(options.config), "days": options.days, "users": options.users, "seed": options.seed}
    write_report(
        "exploration", [{k: np.round(v, 5) if k != "variant" else v for k, v in r.items()} for r in rows], about
    )


if __name__ == "__main__":
    main()
