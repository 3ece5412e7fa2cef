"""Experiments drawn from the users of the synthetic world: their events by day, random arms, planted effects.

A unit is a user of the world, drawn with replacement, with everything that this user did. How often people come and how
much they play is the world's; only the arm is drawn here. Without an effect, each draw is an A/A test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.units import DAY_US, HOUR_US
from handsell.data.config import WorldConfig
from handsell.data.world.catalog import get_log_span
from handsell.data.world.event_recorder import IMPRESSION, LIKE, LISTEN
from handsell.data.world.listeners import build_listeners, n_partitions
from handsell.data.world.session_simulation import simulate_sessions
from handsell.experiments.analysis.log.outcomes import UnitOutcomes

DAYS = 14  # of the experiment, the last ones of the world's log
CONVERSION_US = DAY_US
TYPES = ("listen", "like")


@dataclass(frozen=True)
class Population:
    """U users of the world who were served a slate during the experiment, and their counts by day (U, DAYS)."""

    start: int  # µs, a midnight
    first: np.ndarray  # (U,) int64 µs
    slates: np.ndarray
    shown: np.ndarray
    clicks: np.ndarray
    events: np.ndarray  # (U, DAYS, T)
    converted: np.ndarray  # (U, T) bool
    before: np.ndarray  # (U, T)
    active: np.ndarray  # (U, 2) bool, on day 1 and on day 7
    first_day_slates: np.ndarray  # (U,)
    busiest_hour: np.ndarray  # (U,)

    def __len__(self) -> int:
        return len(self.first)


def build_population(users: int, seed: int = 7) -> Population:
    """Simulate the world and count what its users do after their first slate in the last DAYS days."""
    world = WorldConfig(users=users, seed=seed)
    parts = [
        simulate_sessions(world, part, build_listeners(world, part)).arrays() for part in range(n_partitions(world))
    ]
    log = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    start = get_log_span(world)[1] // DAY_US * DAY_US - DAYS * DAY_US
    return count_events(log, users, start)


def count_events(log: dict[str, np.ndarray], users: int, start: int) -> Population:
    """Count the events of a log by user and day."""
    user, time, kind = log["user"], log["time"], log["type"]
    top = (kind == IMPRESSION) & (log["position"] == 1) & (time >= start)
    first = np.full(users, np.iinfo(np.int64).max)
    np.minimum.at(first, user[top], time[top])
    after = (time >= first[user]) & (time < start + DAYS * DAY_US)
    day = np.clip((time - start) // DAY_US, 0, DAYS - 1)

    def count(rows: np.ndarray) -> np.ndarray:
        rows = rows & after
        return np.bincount(user[rows] * DAYS + day[rows], minlength=users * DAYS).reshape(users, DAYS)

    since = time - first[user]
    acted = kind != IMPRESSION
    of_type = [kind == LISTEN, kind == LIKE]
    hour = user[top & after] * (DAYS * 24) + (time[top & after] - start) // HOUR_US
    hourly = np.bincount(hour, minlength=users * DAYS * 24).reshape(users, -1)
    any_of = lambda rows: np.bincount(user[rows], minlength=users)  # noqa: E731
    seen = np.flatnonzero(first < start + DAYS * DAY_US)
    population = Population(
        start=start,
        first=first,
        slates=count(top),
        shown=count(kind == IMPRESSION),
        clicks=count((kind == LISTEN) & (log["slate"] >= 0)),
        events=np.stack([count(rows) for rows in of_type], axis=2),
        converted=np.stack([any_of(rows & after & (since < CONVERSION_US)) > 0 for rows in of_type], axis=1),
        before=np.stack([any_of(rows & (since < 0)) for rows in of_type], axis=1),
        active=np.stack(
            [any_of(acted & (since >= d * DAY_US) & (since < (d + 1) * DAY_US)) > 0 for d in (1, 7)], axis=1
        ),
        first_day_slates=any_of(top & after & (since < DAY_US)),
        busiest_hour=hourly.max(axis=1),
    )
    return Population(start, *(getattr(population, name)[seen] for name in list(population.__dataclass_fields__)[1:]))


@dataclass(frozen=True)
class DrawnExperiment:
    """N units with arms; `looks` gives their outcomes day by day."""

    population: Population
    user: np.ndarray  # (N,) rows of the population
    arm: np.ndarray  # (N,) int8
    clicks: np.ndarray  # (N, DAYS), with the planted effect
    events: np.ndarray  # (N, DAYS, T)
    arms: tuple[str, ...] = ("control", "bold")

    def read(self, day: int) -> UnitOutcomes:
        """Return the outcomes at the end of a day of the experiment, from 0."""
        people, until = self.population, self.population.start + (day + 1) * DAY_US
        rows = np.flatnonzero(people.first[self.user] < until)
        user, days = self.user[rows], slice(0, day + 1)
        return UnitOutcomes(
            arms=self.arms,
            types=TYPES,
            until=until,
            conversion_us=CONVERSION_US,
            unit=rows,
            arm=self.arm[rows],
            first=people.first[user],
            slates=people.slates[user, days].sum(axis=1),
            first_day_slates=people.first_day_slates[user],
            busiest_hour=people.busiest_hour[user],
            shown=people.shown[user, days].sum(axis=1),
            clicks=self.clicks[rows, days].sum(axis=1),
            events=self.events[rows, days].sum(axis=1),
            converted=people.converted[user],
            before=people.before[user],
            active_1=people.active[user, 0],
            active_7=people.active[user, 1],
            crossed=np.zeros(len(rows), bool),
        )


def draw_experiment(
    population: Population, units: int, rng: np.random.Generator, effect: float = 0.0
) -> DrawnExperiment:
    """Draw units and arms; the second arm's clicks and events are 1 + effect times as many, in expectation."""
    user = rng.integers(len(population), size=units)
    arm = rng.integers(2, size=units).astype(np.int8)
    clicks, events = population.clicks[user], population.events[user]
    if effect:
        treated = arm == 1
        clicks[treated] = change_counts(clicks[treated], effect, rng)
        events[treated] = change_counts(events[treated], effect, rng)
    return DrawnExperiment(population, user, arm, clicks, events)


def change_counts(counts: np.ndarray, effect: float, rng: np.random.Generator) -> np.ndarray:
    """Return counts of which each event is lost, or happens once more, with a probability of |effect|."""
    return counts + int(np.sign(effect)) * rng.binomial(counts, abs(effect))
