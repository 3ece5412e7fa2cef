"""Logged propensities are the true chances: a mixture's draws and its formula agree."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from handsell.core.units import DAY_US
from handsell.data.config import WorldConfig
from handsell.data.world.catalog import build_catalog, get_log_span
from handsell.data.world.listen_history import ListenHistory, RecentListens, sum_matches
from handsell.data.world.listeners import build_listeners
from handsell.data.world.mixture import Mixture
from handsell.data.world.policy import build_logging_mixture, draw_slate
from handsell.data.world.preference import build_listener_states
from handsell.data.world.session_simulation import build_proposal

TINY = WorldConfig(users=40, items=60, artists=12, tags=8, days=20)


def listens_of(users: int, rng: np.random.Generator, time: int) -> RecentListens:
    """Random listens to the oldest tracks, none for user 0."""
    history = ListenHistory.empty(users)
    for _ in range(50):
        who = np.flatnonzero(rng.random(users) < 0.4)
        who = who[who > 0]
        history.add(who, rng.integers(0, 30, len(who)), np.full(len(who), time - DAY_US))
    return history.select(np.arange(users))


@pytest.fixture
def mixtures() -> dict[str, Mixture]:
    rng, users = np.random.default_rng(3), 6
    start, end = get_log_span(TINY)
    tracks, time = build_catalog(TINY), np.full(users, (start + end) // 2)
    listens = listens_of(users, rng, int(time[0]))
    now = build_listener_states(build_listeners(TINY, 0), np.arange(users), time, (start, end))
    return {"policy": build_logging_mixture(tracks, time, listens), "proposal": build_proposal(tracks, now, listens)}


@pytest.mark.parametrize("name", ["policy", "proposal"])
def test_probabilities_sum_to_one_and_both_forms_agree(name: str, mixtures: dict[str, Mixture]) -> None:
    mixture = mixtures[name]
    whole = mixture.chance_of_all()
    every = np.broadcast_to(np.arange(TINY.items), whole.shape)
    np.testing.assert_allclose(whole, mixture.chance(every), atol=1e-12)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-9)
    assert (whole[every >= mixture.released[:, None]] == 0).all()


@pytest.mark.parametrize("name", ["policy", "proposal"])
def test_frequencies_of_draws_match_their_probabilities(name: str, mixtures: dict[str, Mixture]) -> None:
    mixture, n = mixtures[name], 40_000
    drawn = mixture.draw(np.random.default_rng(5), n)
    for b, chance in enumerate(mixture.chance_of_all()):
        seen = np.bincount(drawn[b], minlength=TINY.items)
        assert (seen[chance == 0] == 0).all()
        likely = chance * n >= 5
        expected = np.append(chance[likely], chance[~likely].sum()) * n
        found = np.append(seen[likely], seen[~likely].sum())
        some = expected > 0
        assert stats.chisquare(found[some], expected[some] * n / expected[some].sum()).pvalue > 1e-4


def test_shown_items_match_their_logged_propensity_at_every_position(mixtures: dict[str, Mixture]) -> None:
    policy, rng, n = mixtures["policy"], np.random.default_rng(7), 20_000
    one = 1  # the same listener, asked again and again
    many = Mixture(
        policy.tracks, *(np.repeat(x[[one]], n, axis=0) for x in (policy.released, policy.recent)),
        RecentListens(*(np.repeat(getattr(policy.listens, f)[[one]], n, axis=0) for f in ("item", "time", "count"))),
        *(np.repeat(x[[one]], n, axis=0) for x in (policy.tag_chance, policy.share)),
    )  # fmt: skip
    item, propensity = draw_slate(many, rng, 5)
    assert (item >= 0).all()
    assert all(len(set(row)) == 5 for row in item[:500].tolist())
    released = int(policy.released[one])
    for place in range(5):
        # unbiased inverse weighting: each of the tracks not shown above counts one on average
        inverse = 1 / propensity[:, place]
        assert abs(inverse.mean() - (released - place)) < 4.5 * inverse.std() / np.sqrt(n)
        # and for a track: how often it was shown here = its mean chance of being shown here
    first = np.bincount(item[:, 0], minlength=TINY.items)
    expected = policy.chance_of_all()[one] * n
    assert stats.chisquare(first[expected > 0], expected[expected > 0]).pvalue > 1e-4


def test_a_catalog_smaller_than_the_slate_gives_a_shorter_slate() -> None:
    world = WorldConfig(users=2, items=3, artists=2, tags=2)
    tracks, time = build_catalog(world), np.full(4, get_log_span(world)[1])
    item, propensity = draw_slate(
        build_logging_mixture(tracks, time, ListenHistory.empty(4).select(np.arange(4))), np.random.default_rng(0), 6
    )
    assert ((item >= 0).sum(axis=1) <= 3).all() and (item[:, 0] >= 0).all()
    assert (propensity[item < 0] == 0).all() and (propensity <= 1 + 1e-9).all()


def test_sum_matches_count_and_sum_by_hand() -> None:
    heard = np.array([[4, 7, 4], [-1, 7, -1]])
    item = np.array([[4, 5], [7, 4]])
    count, total = sum_matches(heard, item, np.ones((2, 3)), np.array([[0.5, 9, 0.25], [9, 3, 9]]))
    assert count.tolist() == [[2, 0], [1, 0]]
    assert total.tolist() == [[0.75, 0], [3, 0]]
