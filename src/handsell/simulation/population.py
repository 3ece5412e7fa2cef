"""The simulated population: listeners of a world after the end of its log, with new listeners and new tracks.

    population = build_population(world, days=30, users=2_000, seed=1)
    state = PopulationState.start(population)
    for day in range(population.days):
        for visits in iterate_visits(population, state, day):      # handsell.simulation.visits
            item = choose(visits)                                  # your policy: (B, 10) track numbers, -1 padded
            responses = respond(population, state, visits, item)   # handsell.simulation.behavior
            organic = listen_organically(population, state, visits, responses)  # handsell.simulation.organic; optional

`respond` returns what each listener examined, played, skipped, liked and saved, and the true satisfaction, which no
recommender sees. The calls need NumPy only. All random numbers are keyed by seed, user, day, visit and item, so that
two policies meet the same people in the same circumstances; `respond(…, effect=0.02)` plants an effect of known size.
`handsell.simulation.policies` has policies of known quality, and `handsell.simulation.closed_loop.simulate_days` runs
the loop above.

Tastes continue to drift after the log as within it. A track of the world keeps its number; tracks released during the
simulation have the numbers after it, in order of release, as `Catalog` has them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from handsell.core.errors import ConfigError
from handsell.core.units import DAY_US
from handsell.data.config import WorldConfig
from handsell.data.world.catalog import (
    DIMENSIONS,
    RELEASED_DURING,
    Catalog,
    Groups,
    build_catalog,
    get_log_span,
    normalize,
    stream,
)
from handsell.data.world.listeners import JOIN_DURING, Listeners, build_listeners, n_partitions
from handsell.data.world.preference import ListenerState, build_listener_states
from handsell.simulation.keyed_draws import Purpose, draw_keyed_normal

LURE = 0.6  # standard deviation of what makes a track look better than it is, in units of utility


@dataclass(frozen=True)
class Population:
    """U listeners and I tracks from the end of a world's log on."""

    world: WorldConfig
    seed: int
    days: int
    start: int  # µs, midnight of the first day
    people: Listeners  # (U,) those of the world, then those who join in order of joining
    tracks: Catalog  # (I,) those of the world, then those released in order of release
    lure: np.ndarray  # (I,) float, raises the chance that a track is played, not the satisfaction
    old_users: int  # listeners who were there before the first day
    old_items: int  # tracks of the world

    def __len__(self) -> int:
        return len(self.people)

    def compute_states(self, row: np.ndarray, time: np.ndarray) -> ListenerState:
        """Return the true states of listeners (B,) at times (B,) µs."""
        return build_listener_states(self.people, row, time, get_log_span(self.world))

    def count_joined(self, day: int) -> int:
        """Return how many listeners have joined by the start of a day; they are the first ones."""
        return int(np.searchsorted(self.people.joined[self.old_users :], self.start + day * DAY_US, "right")) + (
            self.old_users
        )

    def list_released(self, day: int) -> np.ndarray:
        """Return the numbers of the tracks that are released on a day."""
        edges = self.start + np.array([day, day + 1]) * DAY_US
        first, last = np.searchsorted(self.tracks.published, edges)
        return np.arange(max(first, self.old_items), max(last, self.old_items))


def build_population(
    world: WorldConfig,
    days: int,
    users: int | None = None,
    seed: int = 0,
    *,
    new_users_per_day: float | None = None,
    new_items_per_day: float | None = None,
) -> Population:
    """Build the first `users` listeners of a world, by default all, and those who join during `days`.

    Listeners and tracks arrive by default at the rate of the world's log. Raises ConfigError for a size that the world
    does not have.
    """
    if users is not None and not 1 <= users <= world.users:
        raise ConfigError(
            f"users: expected 1 to {world.users}, the listeners of the world, got {users}; raise data.world.users"
        )
    if days < 1:
        raise ConfigError(f"days: expected at least 1, got {days}")
    users = users or world.users
    join = users * JOIN_DURING / world.days if new_users_per_day is None else new_users_per_day
    release = world.items * RELEASED_DURING / world.days if new_items_per_day is None else new_items_per_day
    _, start = get_log_span(world)
    first = [build_listeners(world, partition) for partition in range(n_partitions(world))]
    people = _concatenate(
        [_select(_concatenate(first), slice(users)), _draw_new_listeners(world, round(join * days), days)]
    )
    tracks = _release_tracks(build_catalog(world), world, round(release * days), days)
    lure = LURE * draw_keyed_normal(world.seed, Purpose.LURE, np.arange(len(tracks)))
    return Population(world, seed, days, start, people, tracks, lure, users, world.items)


def _draw_new_listeners(world: WorldConfig, count: int, days: int) -> Listeners:
    """Draw listeners who join evenly over the days: those of further partitions of a larger world."""
    first, size = n_partitions(world), world.users_per_partition
    more = -(-count // size)
    larger = world.model_copy(update={"users": (first + more) * size})
    parts = [build_listeners(larger, first + k) for k in range(more)] or [_select(build_listeners(world, 0), slice(0))]
    _, start = get_log_span(world)
    joined = start + (np.arange(count) * days // max(count, 1)) * DAY_US
    return replace(_select(_concatenate(parts), slice(count)), joined=joined.astype(np.int64))


def _release_tracks(old: Catalog, world: WorldConfig, count: int, days: int) -> Catalog:
    """Add tracks that are released evenly over the days, each a variation of a track by the same artist."""
    rng = stream(world, "simulation")
    like = rng.integers(len(old), size=count)
    _, start = get_log_span(world)
    energy = np.clip(old.energy[like] + rng.normal(0, 0.1, count), 0, 1).astype(np.float32)
    new = {
        "artist": old.artist[like],
        "tags": old.tags[like],
        "vector": normalize(old.vector[like] + 0.35 * rng.normal(0, 1 / np.sqrt(DIMENSIONS), (count, DIMENSIONS))),
        "weight": old.weight[rng.integers(len(old), size=count)],
        "published": start + (np.arange(count) * (days * DAY_US // max(count, 1))).astype(np.int64),
        "energy": energy,
        "acousticness": np.clip(old.acousticness[like] + rng.normal(0, 0.1, count), 0, 1).astype(np.float32),
        "tempo": np.round(72 + 75 * energy + rng.normal(0, 9, count)).astype(np.float32),
        "explicit": old.explicit[like],
    }
    both = {name: np.concatenate([getattr(old, name), value]) for name, value in new.items()}
    row, column = np.nonzero(both["tags"] >= 0)
    artists, items = len(old.by_artist.offset) - 1, np.arange(len(both["artist"]))
    return replace(
        old,
        **both,
        by_artist=Groups.of(both["artist"], items, artists, both["weight"]),
        by_tag=Groups.of(both["tags"][row, column], row, len(old.genre_vector), both["weight"]),
        below=np.concatenate([[0.0], np.cumsum(both["weight"])]),
    )


def _select(people: Listeners, rows: slice) -> Listeners:
    return Listeners(**{f.name: getattr(people, f.name)[rows] for f in fields(Listeners)})


def _concatenate(parts: list[Listeners]) -> Listeners:
    return Listeners(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Listeners)})
