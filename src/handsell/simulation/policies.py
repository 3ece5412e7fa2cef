"""Policies that choose slates without a deployment: random, popular, and the truth with noise.

They stand beside the policies of a deployment as a lower and an upper bound, and give traffic of known quality.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from handsell.core.batches import NONE
from handsell.core.units import DAY_US
from handsell.data.world.policy import build_logging_mixture, draw_slate
from handsell.data.world.preference import transition
from handsell.simulation.behavior import SATIATION, Responses, compute_pull
from handsell.simulation.keyed_draws import Purpose, draw_keyed, draw_keyed_normal
from handsell.simulation.organic import OrganicListens
from handsell.simulation.population import Population
from handsell.simulation.population_state import PopulationState
from handsell.simulation.visits import VisitGenerator, Visits

CHUNK = 128  # visits scored at a time
POOL = 80  # tracks from which the oracle orders a slate


@dataclass(frozen=True, slots=True)
class SimulatedSlates:
    """Slates of B visits; `propensity` is the probability of each item given those above it."""

    item: np.ndarray  # (B, n) int32 track numbers, -1 padded
    propensity: np.ndarray  # (B, n) float32
    score: np.ndarray | None = None  # (B, n) float32 in 0..1, of a ranker


class Policy(Protocol):
    """Chooses slates; `observe` shows it what visitors did, never their enjoyment."""

    def recommend(self, visits: Visits, n: int) -> SimulatedSlates: ...

    def observe(
        self, visits: Visits, shown: SimulatedSlates, responses: Responses, organic: OrganicListens
    ) -> None: ...

    def end_day(self, day: int) -> None:
        """Learn from the day, if the policy does so between days."""
        ...


@dataclass
class RandomPolicy:
    """Uniform over the released tracks."""

    population: Population

    def recommend(self, visits: Visits, n: int) -> SimulatedSlates:
        released = self.population.tracks.count_released(visits.time)
        place = np.arange(n)
        keys = (visits.user[:, None], visits.day[:, None], visits.turn[:, None], place)
        step = released[:, None] / n  # a track from each n-th part of the catalog: no repeats
        item = ((place + draw_keyed(self.population.seed, Purpose.POLICY, *keys)) * step).astype(np.int32)
        return SimulatedSlates(item, np.ones(item.shape, np.float32))

    def observe(
        self, visits: Visits, shown: SimulatedSlates, responses: Responses, organic: OrganicListens
    ) -> None: ...

    def end_day(self, day: int) -> None: ...


@dataclass
class LoggingPolicy:
    """The policy that the world's log was recorded with; its propensities are exact."""

    population: Population
    state: PopulationState

    def recommend(self, visits: Visits, n: int) -> SimulatedSlates:
        listens = self.state.listens.select(visits.row)
        mixture = build_logging_mixture(self.population.tracks, visits.time, listens)
        numbers = VisitGenerator(self.population, visits, Purpose.POLICY)
        item, propensity = draw_slate(mixture, numbers, n)  # type: ignore[arg-type]
        return SimulatedSlates(item, propensity.astype(np.float32))

    def observe(
        self, visits: Visits, shown: SimulatedSlates, responses: Responses, organic: OrganicListens
    ) -> None: ...

    def end_day(self, day: int) -> None: ...


@dataclass
class PopularPolicy:
    """The tracks with the most listens so far, the same for all visitors of a day."""

    population: Population
    counts: np.ndarray  # (I,) float, listens before the first day
    ranking: np.ndarray = field(init=False)  # (I,) tracks as of the start of the day

    def __post_init__(self) -> None:
        self.counts = self.counts.copy()
        self.end_day(-1)

    def recommend(self, visits: Visits, n: int) -> SimulatedSlates:
        item = np.broadcast_to(self.ranking[:n].astype(np.int32), (len(visits), n))
        return SimulatedSlates(item, np.ones(item.shape, np.float32))

    def observe(self, visits: Visits, shown: SimulatedSlates, responses: Responses, organic: OrganicListens) -> None:
        for item in (responses.item[responses.listened], organic.item[organic.item >= 0]):
            np.add.at(self.counts, item, 1)

    def end_day(self, day: int) -> None:
        tracks = self.population.tracks
        released = tracks.published <= self.population.start + (day + 1) * DAY_US
        self.ranking = np.argsort(np.where(released, -self.counts, np.inf), kind="stable")


@dataclass
class OraclePolicy:
    """Order tracks by their true pull plus normal noise: without noise the upper bound."""

    population: Population
    state: PopulationState
    noise: float = 0.0

    def recommend(self, visits: Visits, n: int) -> SimulatedSlates:
        parts = [self._choose(visits.take(slice(at, at + CHUNK)), n) for at in range(0, len(visits), CHUNK)]
        item = np.concatenate(parts)
        return SimulatedSlates(item, np.ones(item.shape, np.float32))

    def observe(
        self, visits: Visits, shown: SimulatedSlates, responses: Responses, organic: OrganicListens
    ) -> None: ...

    def end_day(self, day: int) -> None: ...

    def _choose(self, visits: Visits, n: int) -> np.ndarray:
        tracks, seed = self.population.tracks, self.population.seed
        everything = np.broadcast_to(np.arange(len(tracks)), (len(visits), len(tracks)))
        pull = compute_pull(self.population, self.state, visits, everything)
        pull[everything >= tracks.count_released(visits.time)[:, None]] = -np.inf
        if self.noise:
            keys = (visits.user[:, None], visits.day[:, None], visits.turn[:, None], everything)
            pull += self.noise * draw_keyed_normal(seed, Purpose.POLICY, *keys)
        pool = np.argpartition(-pull, min(POOL, len(tracks)) - 1, axis=1)[:, :POOL]
        pull, row = np.take_along_axis(pull, pool, 1), np.arange(len(visits))
        genre, satiation = tracks.tags[pool, 0], self.state.satiation[visits.row].copy()
        item, previous = np.full((len(visits), n), NONE, np.int32), np.full(len(visits), NONE, np.int32)
        for p in range(min(n, pool.shape[1])):
            tired = SATIATION * np.log1p(satiation[row[:, None], genre])
            best = np.argmax(pull + transition(tracks, pool, previous) - tired, axis=1)
            item[:, p] = previous = pool[row, best].astype(np.int32)
            satiation[row, genre[row, best]] += 1
            pull[row, best] = -np.inf
        return item
