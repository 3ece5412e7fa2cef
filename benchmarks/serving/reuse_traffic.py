"""How many requests reuse what was computed, in the traffic of the simulator.

Simulated listeners visit for a day and react; a gateway in this process answers at the time of each visit, from a copy
of the deployment's state. The simulator's visits are one request each, at least 2.5 hours apart. The other traffic adds
what it does not have: reloads of a share of the pages, and a page of three widgets. `listeners ×`: visits follow each
other so much faster, as with so many times the listeners.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from handsell.config import Config, load_config
from handsell.core.batches import NONE
from handsell.core.paths import Layout
from handsell.data.world.tables import format_user_ids
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.features.store import open_store
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.graph.loaded_bundle import load_bundle
from handsell.serving.graph.loading import LIVE, open_bundle
from handsell.serving.graph.service import Service
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.serving.http import schemas
from handsell.serving.telemetry.observability import Metrics
from handsell.simulation.behavior import Responses
from handsell.simulation.closed_loop import simulate_days
from handsell.simulation.logged_rows import build_event_rows
from handsell.simulation.organic import OrganicListens
from handsell.simulation.policies import SimulatedSlates
from handsell.simulation.population import build_population
from handsell.simulation.population_state import PopulationState
from handsell.simulation.visits import Visits

RELOAD_US = 10_000_000  # from a page to its reload
FASTER = 100
DEADLINE_MS = 60_000  # this process answers alone, however busy the machine is


@dataclass(frozen=True)
class TrafficShape:
    """What visitors ask for."""

    name: str
    widgets: int = 1  # of 3: home, home again (a teaser), similar items
    reloads: float = 0.0  # share of pages
    faster: int = 1


SHAPES = (
    TrafficShape("simulator: one request a visit"),
    TrafficShape("simulator, more listeners", faster=FASTER),
    TrafficShape("10 % reloads", reloads=0.1),
    TrafficShape("three widgets, one list twice", widgets=3),
    TrafficShape("three widgets, 10 % reloads, more listeners", widgets=3, reloads=0.1, faster=FASTER),
)


class VisitClock:
    """A service clock that stands at the time of the visit."""

    offset_us = 0

    def __init__(self) -> None:
        self.time_us = 0

    def now(self) -> int:
        return self.time_us

    def from_wall(self, wall_us: int) -> int:
        return wall_us


@dataclass
class InProcessPolicy:
    """Answers visits from a gateway in this process."""

    shape: TrafficShape
    service: Service
    log: SqliteWriter
    loop: asyncio.AbstractEventLoop
    clock: VisitClock
    start: int  # µs
    types: frozenset[str]
    counts: Counter[str] = field(default_factory=Counter)
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    names: list[str] = field(default_factory=list)

    def recommend(self, visits: Visits, n: int) -> SimulatedSlates:
        item = np.full((len(visits), n), NONE, np.int32)
        self.names = []
        for b, (user, time_us) in enumerate(zip(format_user_ids(visits.user), visits.time.tolist(), strict=True)):
            self.clock.time_us = self._move(time_us)
            answer = self._show(user, n)
            if self.draw.random() < self.shape.reloads:
                self.clock.time_us += RELOAD_US
                answer = self._show(user, n)
            self.names.append(answer.recommendation_id)
            shown = [int(one.item_id[1:]) for one in answer.items]
            item[b, : len(shown)] = shown
        return SimulatedSlates(item, np.ones(item.shape, np.float32))

    def _move(self, time_us: int) -> int:
        return self.start + (time_us - self.start) // self.shape.faster

    def _show(self, user: str, n: int) -> Any:
        """Ask for all widgets of a page; return the first one's answer."""
        body = schemas.RecommendationsBody(user_id=user, count=n, include=["debug"])
        answers = [self._run(self.service.recommend(body)) for _ in range(min(self.shape.widgets, 2))]
        if self.shape.widgets > 2:
            similar = schemas.SimilarParameters(user_id=user, include=["debug"])
            answers.append(self._run(self.service.similar(answers[0].items[0].item_id, similar)))
        self.counts.update(answer.debug.reused for answer in answers)
        return answers[0]

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def observe(self, visits: Visits, shown: SimulatedSlates, responses: Responses, organic: OrganicListens) -> None:
        rows = build_event_rows(visits, responses, self.names, self.types)
        self.log.append([{**row, "time": self._move(row["time"])} for row in rows]).result()

    def end_day(self, day: int) -> None:
        pass


def count_reuse(config_path: Path, users: int, folder: Path) -> list[dict[str, Any]]:
    """Return a row for each shape of traffic; `folder` takes copies of the state."""
    return [_replay(shape, _copy_state(config_path, folder / str(place)), users) for place, shape in enumerate(SHAPES)]


def _copy_state(config_path: Path, home: Path) -> Config:
    """Copy the state of a deployment without its log of events; return the config that uses the copy."""
    config = load_config(config_path)
    shutil.copytree(config.state, home / config.state.name, ignore=shutil.ignore_patterns("log.*", "run*"))
    os.environ["HANDSELL_HOME"] = str(home)
    return load_config(config_path)


def _replay(shape: TrafficShape, config: Config, users: int) -> dict[str, Any]:
    log, loop, clock = SqliteWriter(Layout(config.state).event_log), asyncio.new_event_loop(), VisitClock()
    opened, metrics = open_bundle(str(config.source), LIVE), Metrics()
    serving = opened.config.serving.model_copy(update={"deadline_ms": DEADLINE_MS})
    opened = replace(opened, config=opened.config.model_copy(update={"serving": serving}))
    population = build_population(config.data.world, 1, users)
    types = frozenset(config.events.types)

    async def open_service() -> Service:
        bundle = load_bundle(opened, load_local_stages(opened), open_store(opened.config), metrics)
        bundle.clock = clock  # type: ignore[assignment]
        return Service(bundle, LocalSink(log), metrics)

    service = loop.run_until_complete(open_service())
    policy = InProcessPolicy(shape, service, log, loop, clock, population.start, types)
    simulate_days(population, PopulationState.start(population), policy)
    loop.run_until_complete(service.close())
    total = policy.counts.total()
    shares = {part: f"{policy.counts[part] / total:.1%}" for part in ("slate", "candidates")}
    return {"traffic": shape.name, "listeners ×": shape.faster, "requests": total} | shares
