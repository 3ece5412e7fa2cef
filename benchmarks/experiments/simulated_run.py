"""One experiment on the simulated population, from the plan to the verdict, by the commands that a user runs.

A deployment in this process answers each visit with the settings of the listener's arm, assigned as the gateway does,
and logs to its event store, which `handsell experiments` reads. Before the experiment starts, a week is logged for the
plan.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from handsell.bundles.stages import Stages
from handsell.cli import app
from handsell.config import Config, load_config
from handsell.config.overlay import apply_overlay
from handsell.core.units import DAY_US
from handsell.data.world.tables import format_user_ids
from handsell.events.store.opening import open_writer
from handsell.experiments.traffic import Participation, RequestUnits, Traffic
from handsell.local.ownership import OWNER
from handsell.simulation.behavior import Responses
from handsell.simulation.closed_loop import simulate_days
from handsell.simulation.deployed_policy import DeployedPolicy
from handsell.simulation.log_listens import draw_log_listens
from handsell.simulation.logged_rows import SURFACE, build_event_rows, build_organic_rows, build_slate_rows, name_slates
from handsell.simulation.organic import OrganicListens
from handsell.simulation.policies import SimulatedSlates
from handsell.simulation.population import Population, build_population
from handsell.simulation.population_state import PopulationState
from handsell.simulation.visits import Visits

BEFORE = 7  # days that are logged for the plan
NAME, TEST = "popular", "same_for_all"
ARM = 'surface = { only = ["popularity"], ranked = false }'


@dataclass
class ArmPolicy(DeployedPolicy):
    """Answers each visit with the settings of the listener's arm."""

    traffic: Traffic = field(init=False)
    taken: list[Participation] = field(default_factory=list)  # of the latest visits
    looks: tuple[int, ...] = ()  # days at whose end the experiment is analyzed
    _made: dict[str, tuple[Stages, Stages]] = field(default_factory=dict)  # by overlay: base, and made of it

    def __post_init__(self) -> None:
        self.traffic = Traffic(self.config)
        super().__post_init__()

    def recommend(self, visits: Visits, n: int) -> SimulatedSlates:
        self.taken = [
            self.traffic.assign(RequestUnits(user=user), SURFACE, at)
            for user, at in zip(format_user_ids(visits.user), visits.time.tolist(), strict=True)
        ]
        overlays = [taken.variant.overlay for taken in self.taken]
        base, rows, parts = self.bundle.stages, [], []
        for overlay in dict.fromkeys(overlays):
            rows.append(np.array([b for b, own in enumerate(overlays) if own == overlay]))
            self.bundle.stages = self._find_stages(overlay, base)
            parts.append(super().recommend(visits.take(rows[-1]), n))
        self.bundle.stages, order = base, np.argsort(np.concatenate(rows))
        return SimulatedSlates(
            *(np.concatenate([getattr(p, name) for p in parts])[order] for name in ("item", "propensity", "score"))
        )

    def _find_stages(self, overlay: str, base: Stages) -> Stages:
        if not overlay:
            return base
        if overlay not in self._made or self._made[overlay][0] is not base:
            self._made[overlay] = base, base.with_config(apply_overlay(self.bundle.config, overlay))
        return self._made[overlay][1]

    def observe(self, visits: Visits, shown: SimulatedSlates, responses: Responses, organic: OrganicListens) -> None:
        slates = build_slate_rows(visits, shown, self.bundle_id, self._logged + 1)
        for slate, taken in zip(slates, self.taken, strict=True):
            slate["items"] = json.dumps({**json.loads(slate["items"]), "arms": taken.arms})
        names, types = name_slates(visits), self.config.events.types
        events = build_event_rows(visits, responses, names, types) + build_organic_rows(visits, organic, names, types)
        self._logged += len(slates)
        with closing(open_writer(self.config)) as writer:
            writer.append_slates(slates).result()
            writer.append(events).result()

    def end_day(self, day: int) -> None:
        super().end_day(day)
        source = str(self.config.source)
        if day + 1 == BEFORE:
            print(run_command("plan", source, NAME, "--days", str(BEFORE)))
        if day + 1 in self.looks:
            print(f"-- after day {day + 1 - BEFORE} of the experiment")
            print(run_command("analyze", source, NAME))


def run_command(command: str, *options: str) -> str:
    """Return the command line of `handsell experiments` and what it prints."""
    done = CliRunner().invoke(app, ["experiments", command, *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return f"$ handsell experiments {command} {' '.join(options)}\n{done.output}"


def prepare(source: Path, state: Path, folder: Path, arm: str, start: int) -> Config:
    """Copy a trained deployment and add the experiment to its configuration."""
    begins = datetime.fromtimestamp(start / 1e6, UTC).isoformat().replace("+00:00", "Z")
    path = folder / source.name
    path.write_text(
        f"{source.read_text()}\n[experiments.{NAME}]\nsurfaces = ['home']\nstart = {begins}\nsmallest_effect = 0.05\n"
        f"[experiments.{NAME}.arms.control]\nshare = 0.5\n"
        f"[experiments.{NAME}.arms.{TEST}]\nshare = 0.5\n{arm}\n"
    )
    os.environ["HANDSELL_HOME"] = str(folder / "home")
    config = load_config(path)
    shutil.copytree(state, config.state)
    for log in (config.state / "events").glob("log.db*"):
        log.unlink()
    shutil.rmtree(config.state / "compacted", ignore_errors=True)
    (config.state / OWNER).unlink(missing_ok=True)
    return config


def run_population(config: Config, population: Population, users: int, looks: tuple[int, ...]) -> None:
    log = draw_log_listens(config.data.world, users)
    policy = ArmPolicy(config, population, "funnel", lambda _: "", every=0, looks=looks)
    simulate_days(population, PopulationState.start(population, log), policy)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks simulated_experiment", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--state", type=Path, required=True, help="state folder of the trained world")
    parser.add_argument("--users", type=int, default=800)
    parser.add_argument("--days", type=int, default=14, help="of the experiment")
    parser.add_argument("--arm", default=ARM, help="what the second arm changes, as TOML")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the plots")
    options = parser.parse_args()
    days = BEFORE + options.days
    with tempfile.TemporaryDirectory(prefix="handsell-") as name:
        world = load_config(options.config).data.world
        population = build_population(world, days, options.users, 0)
        start = population.start + BEFORE * DAY_US
        config = prepare(options.config, options.state, Path(name), options.arm, start)
        run_population(config, population, options.users, (BEFORE + 2, BEFORE + options.days // 2))
        plots = [str(options.out / f"experiment{suffix}") for suffix in (".svg", ".html")]
        for plot in plots:
            print(run_command("analyze", str(config.source), NAME, "--segment", "cold", "--plot", plot))


if __name__ == "__main__":
    main()
