"""The simulated population: the same people and random numbers under every policy, and the effects that it promises."""

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest

from handsell.core.errors import ConfigError
from handsell.core.units import DAY_US, HOUR_US
from handsell.data.config import WorldConfig
from handsell.simulation.behavior import compute_examination, compute_pull, respond
from handsell.simulation.closed_loop import simulate_days
from handsell.simulation.policies import OraclePolicy, PopularPolicy, RandomPolicy, SimulatedSlates
from handsell.simulation.population import build_population
from handsell.simulation.population_state import PopulationState
from handsell.simulation.visits import Visits, iterate_visits

WORLD = WorldConfig(users=400, items=600, artists=60, tags=12, days=16, users_per_partition=150)


@pytest.fixture(scope="module")
def population():
    return build_population(WORLD, days=6, users=300, seed=5)


def play(population, make, n=10, seed=None):
    """Simulate one policy from the start; `make(population, state)` builds it."""
    population = population if seed is None else replace(population, seed=seed)
    state = PopulationState.start(population)
    return simulate_days(population, state, make(population, state), n), state


def popular(population, _state):
    return PopularPolicy(population, population.tracks.weight)


def visit_all(population, day=0, turn=0, hour=12):
    """One visit of every listener of the world at the same time."""
    row = np.arange(population.old_users)
    full = np.full(len(row), 1, np.int64)
    time = population.start + day * DAY_US + hour * HOUR_US
    return Visits(row, population.people.number[row], full * day, full * turn, full * time)


class Repeating:
    """Shows each visitor the same slate at every visit."""

    def __init__(self, population, state):
        self.oracle, self.slates = OraclePolicy(population, state), {}

    def recommend(self, visits, n):
        items = self.oracle.recommend(visits, n).item
        kept = [self.slates.setdefault(user, row) for user, row in zip(visits.user.tolist(), items, strict=True)]
        return SimulatedSlates(np.stack(kept), np.ones(items.shape, np.float32))

    def observe(self, visits, shown, responses, organic): ...

    def end_day(self, day): ...


def test_the_same_seed_gives_the_same_trajectories_and_another_seed_others(population):
    (one, _), (two, _), (other, _) = (play(population, popular, seed=seed) for seed in (1, 1, 2))
    for f in fields(one.responses):
        np.testing.assert_array_equal(getattr(one.responses, f.name), getattr(two.responses, f.name))
    assert len(one) != len(other) or (one.responses.played != other.responses.played).any()


def test_the_first_visits_are_the_same_people_at_the_same_times_under_every_policy(population):
    first = []
    for make in (popular, OraclePolicy):
        trace, _ = play(population, make)
        day = trace.take(trace.visits.day == 0)
        first.append(day.take(np.unique(day.visits.row, return_index=True)[1]).visits)
    np.testing.assert_array_equal(first[0].row, first[1].row)
    np.testing.assert_array_equal(first[0].time, first[1].time)


def test_an_item_gets_the_same_reaction_at_the_same_position_whatever_else_is_visited(population):
    visits, item = visit_all(population), np.arange(10)[None].repeat(population.old_users, 0)
    together = respond(population, PopulationState.start(population), visits, item)
    some = np.arange(0, population.old_users, 3)
    alone = respond(population, PopulationState.start(population), visits.take(some), item[some])
    np.testing.assert_array_equal(together.take(some).played, alone.played)
    np.testing.assert_array_equal(together.take(some).part, alone.part)


def test_who_knows_the_truth_satisfies_most_and_keeps_most(population):
    found = {make: play(population, make) for make in (lambda p, s: RandomPolicy(p), popular, OraclePolicy)}
    satisfaction = [trace.responses.satisfaction.mean() for trace, _ in found.values()]
    visits = [len(trace) for trace, _ in found.values()]
    assert satisfaction[2] > 2 * max(satisfaction[:2])
    assert visits[2] > 1.2 * max(visits[:2])
    left = [state.away.mean() for _, state in found.values()]
    assert left[2] < min(left[:2])


def test_noise_makes_the_oracle_worse_step_by_step(population):
    values = [
        play(population, lambda p, s, z=noise: OraclePolicy(p, s, z))[0].responses.satisfaction.mean()
        for noise in (0.0, 2.0, 6.0)
    ]
    assert values[0] > values[1] + 0.05 > values[2] + 0.1


def test_repeating_a_slate_lowers_satisfaction_and_drives_listeners_away(population):
    (fresh, _), (same, _) = play(population, OraclePolicy), play(population, Repeating)
    again = {name: trace.responses.satisfaction[trace.visits.day >= 3].mean() for name, trace in
             (("fresh", fresh), ("same", same))}  # fmt: skip
    assert again["same"] < 0.8 * again["fresh"]
    assert len(same) < len(fresh)


def test_tracks_that_were_shown_and_ignored_lose_pull(population):
    visits = visit_all(population)
    state = PopulationState.start(population)
    item = np.arange(10)[None].repeat(len(visits), 0)
    first = respond(population, state, visits, item)
    later = respond(population, state, replace(visits, day=visits.day + 1, time=visits.time + DAY_US), item)
    passed = first.examined & ~first.played & ~first.played.any(axis=1, keepdims=True)
    assert passed.sum() > 100
    assert (later.enjoyment[passed] < first.enjoyment[passed]).all()


def test_positions_have_the_stated_bias(population):
    visits = visit_all(population)
    slates = np.random.default_rng(3).integers(0, 500, (len(visits), 10))
    examined = np.mean(
        [respond(replace(population, seed=s), PopulationState.start(population), visits, slates).examined
         for s in range(20)], axis=(0, 1),
    )  # fmt: skip
    np.testing.assert_allclose(examined, compute_examination(population, 10), atol=0.02)
    assert examined[0] > 1.5 * examined[-1]


def test_a_planted_effect_has_its_size(population):
    visits, item = visit_all(population), np.arange(10)[None].repeat(population.old_users, 0)
    responses = [
        respond(population, PopulationState.start(population), visits, item[:, :1], effect) for effect in (0.0, -0.05)
    ]
    ratio = responses[1].satisfaction / responses[0].satisfaction
    np.testing.assert_allclose(ratio, 0.95, rtol=1e-5)


def test_lure_makes_clicks_and_satisfaction_differ(population):
    visits, item = visit_all(population), np.arange(10)[None].repeat(population.old_users, 0)
    lured = replace(population, lure=population.lure + 2.0)
    plain, bait = (respond(p, PopulationState.start(p), visits, item[:, :1]) for p in (population, lured))
    np.testing.assert_array_equal(plain.enjoyment, bait.enjoyment)
    assert bait.played.mean() > plain.played.mean() + 0.05


def test_listeners_and_tracks_arrive_over_the_days(population):
    assert len(population) > population.old_users and len(population.tracks) > population.old_items
    joined = [population.count_joined(day) for day in range(population.days)]
    assert joined == sorted(joined) and joined[-1] == len(population)
    released = np.concatenate([population.list_released(day) for day in range(population.days)])
    np.testing.assert_array_equal(released, np.arange(population.old_items, len(population.tracks)))
    assert len(np.unique(population.people.number)) == len(population)
    trace, _ = play(population, OraclePolicy)
    arrived = trace.visits.row >= population.old_users
    assert set(trace.visits.row[arrived]) == set(range(population.old_users, len(population)))
    published = population.tracks.published[trace.responses.item]
    assert (published <= trace.visits.time[:, None]).all()


def test_visits_of_a_listener_are_apart_and_within_their_day(population):
    state, found = PopulationState.start(population), []
    for day in range(population.days):
        for visits in iterate_visits(population, state, day):
            assert len(np.unique(visits.row)) == len(visits)
            assert (visits.time // DAY_US == population.start // DAY_US + day).all()
            found += [(row, time) for row, time in zip(visits.row.tolist(), visits.time.tolist(), strict=True)]
    found.sort()
    gaps = [b[1] - a[1] for a, b in itertools.pairwise(found) if a[0] == b[0]]
    assert len(gaps) > 50 and min(gaps) > HOUR_US


def test_earlier_listens_are_remembered(population):
    rows = np.array([0, 1, 0, 0])
    log = (rows, np.array([5, 6, 7, 8]), population.start - np.array([4, 3, 2, 1]) * DAY_US)
    state = PopulationState.start(population, log)
    recent = state.listens.select(np.array([0, 1, 2]))
    assert recent.count.tolist() == [3, 1, 0]
    assert recent.item[0, :3].tolist() == [5, 7, 8]


def test_sizes_that_the_world_lacks_are_refused():
    with pytest.raises(ConfigError, match="expected 1 to 400, the listeners of the world, got 401"):
        build_population(WORLD, days=2, users=401)
    with pytest.raises(ConfigError, match="days: expected at least 1"):
        build_population(WORLD, days=0)


def test_a_track_that_was_just_played_bores_and_is_a_favorite_weeks_later(population):
    visits, item = visit_all(population), np.full((population.old_users, 1), 3)
    state, fresh = PopulationState.start(population), PopulationState.start(population)
    heard = respond(population, state, visits, item).listened[:, 0]
    assert heard.sum() > 20
    for later, sign in ((4 * HOUR_US, -1), (20 * DAY_US, 1)):
        again = replace(visits, time=visits.time + later).take(heard)
        after, before = (compute_pull(population, s, again, item[heard]) for s in (state, fresh))
        assert (sign * (after - before) > 0).all()


def test_a_genre_that_was_played_much_satisfies_less(population):
    visits, item = visit_all(population), np.full((population.old_users, 1), 3)
    state, fresh = PopulationState.start(population), PopulationState.start(population)
    state.satiation[:, population.tracks.tags[3, 0]] = 4.0
    fed, hungry = (respond(population, s, visits, item).enjoyment for s in (state, fresh))
    assert (fed < hungry).all()
    state.start_day(population, 1)
    assert state.satiation.max() < 5.0 * 0.5 ** (1 / 3.0) + 1e-9
