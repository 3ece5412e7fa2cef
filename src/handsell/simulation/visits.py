"""Who visits when: listeners come at their hours, and more often when they are satisfied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from handsell.core.batches import RowBatch
from handsell.core.units import DAY_US, HOUR_US
from handsell.data.world.listeners import DAYPARTS, SESSION_US
from handsell.simulation.keyed_draws import Purpose, draw_keyed, draw_keyed_normal
from handsell.simulation.population import Population
from handsell.simulation.population_state import PopulationState

CHANCES = 3  # of a listener to visit in a day


@dataclass(frozen=True, slots=True)
class Visits(RowBatch):
    """B visits of different listeners."""

    row: np.ndarray  # (B,) row of the population
    user: np.ndarray  # (B,) number of the listener, as in the id
    day: np.ndarray  # (B,) int64 from 0
    turn: np.ndarray  # (B,) int64, which of the listener's chances of the day this is
    time: np.ndarray  # (B,) int64 µs

    def __len__(self) -> int:
        return len(self.row)


def iterate_visits(population: Population, state: PopulationState, day: int) -> Iterator[Visits]:
    """Yield the visits of a day in rounds: first each listener's first visit, in order of time.

    The state must have been updated for a round before the next is drawn: who leaves does not come again.
    """
    state.start_day(population, day)
    all_visits = _draw_visits(population, state, day)
    order = np.lexsort((all_visits.time, all_visits.row))
    ordered = all_visits.take(order)
    place = np.arange(len(ordered)) - np.searchsorted(ordered.row, ordered.row)
    for r in range(int(place.max(initial=-1)) + 1):
        visits = ordered.take(np.flatnonzero((place == r) & ~state.away[ordered.row]))
        if len(visits):
            yield visits.take(np.argsort(visits.time, kind="stable"))


def _draw_visits(population: Population, state: PopulationState, day: int) -> Visits:
    """Draw all visits of a day, at least the length of a session apart."""
    people, seed = population.people, population.seed
    row = np.arange(population.count_joined(day))
    number, turn = people.number[row][:, None], np.arange(CHANCES)[None, :]
    chance = np.minimum(people.rate[row] * state.compute_visit_factor(row) / CHANCES, 0.9)
    comes = draw_keyed(seed, Purpose.VISIT, number, day, turn) < chance[:, None]
    comes[people.joined[row] == population.start + day * DAY_US, 0] = True  # who joins visits on that day
    edges = np.cumsum(people.dayparts[row], axis=1)
    part = (draw_keyed(seed, Purpose.DAYPART, number, day, turn)[:, :, None] > edges[:, None, :]).sum(axis=2)
    mean, deviation = DAYPARTS[np.minimum(part, len(DAYPARTS) - 1)].transpose(2, 0, 1)
    hour = mean + deviation * draw_keyed_normal(seed, Purpose.HOUR, number, day, turn) + people.hour_shift[row][:, None]
    time = population.start + day * DAY_US + ((hour % 24) * HOUR_US).astype(np.int64)
    time = np.minimum(time, population.start + (day + 1) * DAY_US - SESSION_US // 2)  # sessions end within the day
    comes &= ~_is_close(time, comes)
    b, t = np.nonzero(comes)
    return Visits(row[b], people.number[row[b]], np.full(len(b), day, np.int64), t.astype(np.int64), time[b, t])


def _is_close(time: np.ndarray, comes: np.ndarray) -> np.ndarray:
    """Return (U, C) bool: another visit of an earlier chance is less than a session away."""
    close = np.zeros_like(comes)
    for later in range(1, time.shape[1]):
        for earlier in range(later):
            near = np.abs(time[:, later] - time[:, earlier]) < SESSION_US
            close[:, later] |= comes[:, earlier] & ~close[:, earlier] & near
    return close


def draw_by_visit(population: Population, visits: Visits, purpose: Purpose, key: np.ndarray) -> np.ndarray:
    """Return (B, n) uniform numbers by listener, day, visit and key (B, n) or (n,)."""
    return draw_keyed(
        population.seed, purpose, visits.user[:, None], visits.day[:, None], visits.turn[:, None], key.astype(np.int64)
    )


@dataclass
class VisitGenerator:
    """Stands in for NumPy's generator where a function draws `random((B, …))`: row b depends on visit b alone."""

    population: Population
    visits: Visits
    purpose: Purpose
    calls: int = field(default=0)

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        self.calls += 1
        column = self.calls * 10_000 + np.arange(int(np.prod(shape[1:])))
        return draw_by_visit(self.population, self.visits, self.purpose, column).reshape(shape)
