"""Experiments drawn from the users of the synthetic world: their events by day, random arms, planted effects.

A unit is a user of the world, drawn with replacement, with everything that this user did. How often people come and how
much they play is the world's; only the arm is drawn here. Without an effect, each draw is an A/A test. With one, each
user was simulated twice, with and without it, and the arm decides which of the two outcomes counts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from handsell.core.units import DAY_US, HOUR_US
from handsell.data.config import WorldConfig
from handsell.data.world.catalog import get_log_span
from handsell.data.world.event_recorder import HOME, IMPRESSION, LIBRARY, LIKE, LISTEN, SEARCH, EventRecorder
from handsell.data.world.listeners import build_listeners, n_partitions
from handsell.data.world.session_simulation import simulate_sessions
from handsell.experiments.analysis.log.outcomes import UnitOutcomes
from handsell.simulation.behavior import Responses, respond
from handsell.simulation.log_listens import draw_log_listens
from handsell.simulation.organic import OrganicListens, listen_organically
from handsell.simulation.policies import LoggingPolicy
from handsell.simulation.population import build_population as build_listener_population
from handsell.simulation.population_state import PopulationState
from handsell.simulation.visits import Visits, iterate_visits

DAYS = 14  # of the experiment, the last ones of the world's log
SLATE = 10
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

    def join(self, other: Population) -> Population:
        """Return the users of both, one after the other."""
        names = [field.name for field in fields(self)[1:]]
        return Population(self.start, *(np.concatenate([getattr(self, n), getattr(other, n)]) for n in names))


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
    return Population(start, *(getattr(population, field.name)[seen] for field in fields(population)[1:]))


def simulate_population(users: int, effect: float, seed: int = 7) -> Population:
    """Simulate the listeners of the world after its log, with an effect on their enjoyment and their chance to play.

    The random numbers are the same for every effect, so that user u of two populations is the same person. What people
    feel changes how often they come, and whether they stay.
    """
    world = WorldConfig(users=users, seed=seed)
    people = build_listener_population(world, DAYS, users, seed)
    before = draw_log_listens(world, users)
    state = PopulationState.start(people, before)
    policy, recorder = LoggingPolicy(people, state), EventRecorder()
    recorder.record(user=before[0], item=before[1], type=LISTEN, time=before[2], surface=LIBRARY)
    slates = 0
    for day in range(DAYS):
        for visits in iterate_visits(people, state, day):
            shown = policy.recommend(visits, SLATE)
            responses = respond(people, state, visits, shown.item, effect)
            organic = listen_organically(people, state, visits, responses)
            _record(recorder, visits, responses, organic, slates)
            slates += len(visits)
    return count_events(recorder.arrays(), len(people), people.start)


def _record(
    recorder: EventRecorder, visits: Visits, responses: Responses, organic: OrganicListens, slates: int
) -> None:
    """Record slates, the listens and likes from them, and the listens besides."""
    row, place = np.nonzero(responses.item >= 0)
    recorder.record(
        user=visits.row[row], item=responses.item[row, place], type=IMPRESSION, time=visits.time[row], surface=HOME,
        slate=slates + row, position=place + 1,
    )  # fmt: skip
    for kind, where in ((LISTEN, responses.listened), (LIKE, responses.liked)):
        row, place = np.nonzero(where)
        recorder.record(
            user=visits.row[row], item=responses.item[row, place], type=kind, time=responses.time[row, place],
            surface=HOME, slate=slates + row,
        )  # fmt: skip
    row, place = np.nonzero(organic.item >= 0)
    recorder.record(
        user=visits.row[row], item=organic.item[row, place], type=LISTEN, time=organic.time[row, place], surface=SEARCH
    )


@dataclass(frozen=True)
class DrawnExperiment:
    """N units with arms; `read` gives their outcomes day by day."""

    population: Population
    user: np.ndarray  # (N,) rows of the population
    arm: np.ndarray  # (N,) int8
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
            clicks=people.clicks[user, days].sum(axis=1),
            events=people.events[user, days].sum(axis=1),
            converted=people.converted[user],
            before=people.before[user],
            active_1=people.active[user, 0],
            active_7=people.active[user, 1],
            crossed=np.zeros(len(rows), bool),
            merged=np.zeros(len(rows), bool),
        )


def draw_experiment(
    control: Population, treatment: Population | None, units: int, rng: np.random.Generator
) -> DrawnExperiment:
    """Draw users and arms at random; the second arm has the outcomes of `treatment`, or else of control."""
    user, arm = rng.integers(len(control), size=units), rng.integers(2, size=units).astype(np.int8)
    if treatment is None:
        return DrawnExperiment(control, user, arm)
    return DrawnExperiment(control.join(treatment), user + arm.astype(np.int64) * len(control), arm)
