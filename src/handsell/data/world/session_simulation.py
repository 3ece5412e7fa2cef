"""Simulate the sessions of a partition: slates shown, and tracks played, skipped, liked, saved and shared.

A session depends on the user's sessions before. Round r simulates the r-th session of all users who have one: arrays
over users, loops over rounds and positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.units import DAY_US, SECOND_US
from handsell.data.config import WorldConfig
from handsell.data.world.catalog import Catalog, build_catalog, get_log_span, stream
from handsell.data.world.event_recorder import (
    HOME,
    IMPRESSION,
    LIBRARY,
    LIKE,
    LISTEN,
    SAVE,
    SEARCH,
    SHARE,
    SKIP,
    EventRecorder,
)
from handsell.data.world.listen_history import ListenHistory, RecentListens
from handsell.data.world.listeners import Listeners, draw_session_starts
from handsell.data.world.mixture import Mixture
from handsell.data.world.policy import build_logging_mixture, draw_slate
from handsell.data.world.preference import ListenerState, build_listener_states, familiarity, taste, transition, utility

LISTENS = 3.4  # mean listens per session
SLATE_LISTENS = 1.9  # measured mean listens from a home slate of ten with the base of `examination`
CHOICES = 160  # tracks that a user considers per session of search and library
MAX_ORGANIC = 12
# shares of those: popular, new releases, artists heard, tags of the tastes, tracks heard
PROPOSAL_SHARES = (0.20, 0.08, 0.10, 0.32, 0.30)
NEW_DAYS = 14
SLATE_APPEAL = 2.5  # utility at which half of the examined tracks are played
TRACK_US = 210_000_000


@dataclass
class ListeningSession:
    """One session each of B different users; playing a track updates `clock` and `previous`."""

    row: np.ndarray  # (B,) rows of the partition's users
    user: np.ndarray  # (B,) user numbers
    slate: np.ndarray  # (B,) number of the slate within the partition
    now: ListenerState
    listens: RecentListens
    clock: np.ndarray  # (B,) int64 µs
    previous: np.ndarray  # (B,) int32 track played last in this session, -1 none


def simulate_sessions(world: WorldConfig, partition: int, people: Listeners) -> EventRecorder:
    """Simulate all sessions of the users of a partition."""
    tracks, recorder, history = build_catalog(world), EventRecorder(), ListenHistory.empty(len(people))
    rng = stream(world, "sessions", partition)
    row, time = draw_session_starts(world, people, rng)
    first = np.searchsorted(row, np.arange(len(people)))
    turn = np.arange(len(row)) - first[row] if len(row) else row
    for r in range(int(turn.max(initial=-1)) + 1):
        which = np.flatnonzero(turn == r)
        who, when = row[which], time[which]
        session = ListeningSession(
            row=who,
            user=people.number[who],
            slate=which,
            now=build_listener_states(people, who, when, get_log_span(world)),
            listens=history.select(who),
            clock=when.copy(),
            previous=np.full(len(who), -1, np.int32),
        )
        at_home = rng.random(len(who)) < home_share(world)
        played = _simulate_home(world, tracks, session, at_home, history, rng, recorder)
        _simulate_organic(world, tracks, session, at_home, played, history, rng, recorder)
    return recorder


def home_share(world: WorldConfig) -> float:
    """Share of sessions that start on the home page."""
    return 1 - 0.65 * world.organic_share


def examination(world: WorldConfig) -> np.ndarray:
    """(slate,) probability that each position is examined: position bias, scaled to match `organic_share`."""
    base = 1 / (1 + 0.17 * np.arange(world.slate))
    wanted = (1 - world.organic_share) * LISTENS / home_share(world)
    return np.minimum(base * wanted / SLATE_LISTENS, 1.0)


def play_chance(pull: np.ndarray) -> np.ndarray:
    """Probability that an examined track of a slate is played."""
    return _sigmoid(0.8 * (pull - SLATE_APPEAL))


def _simulate_home(
    world: WorldConfig, tracks: Catalog, s: ListeningSession, at_home: np.ndarray,
    history: ListenHistory, rng: np.random.Generator, recorder: EventRecorder,
) -> np.ndarray:  # fmt: skip
    """Show a slate to users on the home page; return the tracks played from it, (B, slate), -1 elsewhere."""
    item, propensity = draw_slate(build_logging_mixture(tracks, s.now.time, s.listens), rng, world.slate)
    item[~at_home] = -1
    row, column = np.nonzero(item >= 0)
    recorder.record(
        user=s.user[row], item=item[row, column], type=IMPRESSION, time=s.clock[row] + column * 1000, surface=HOME,
        slate=s.slate[row], position=column + 1, propensity=propensity[row, column],
    )  # fmt: skip
    s.clock += np.where(at_home, 2 * SECOND_US, 0)
    shown = np.maximum(item, 0)
    want = utility(tracks, s.now, shown) + familiarity(s.now, s.listens, shown)
    played = np.full(item.shape, -1, np.int32)
    for place, chance in enumerate(examination(world)):
        looked, coin, other = rng.random((3, len(item)))
        pull = want[:, place] + transition(tracks, shown[:, place], s.previous)
        seen = (item[:, place] >= 0) & (looked < chance)
        likes_it = seen & (coin < play_chance(pull))
        skips = seen & ~likes_it & (other < 0.25)
        s.clock += np.where(seen, SECOND_US, 0)
        about = {"surface": HOME, "slate": s.slate, "position": place + 1}
        _skip(s, np.flatnonzero(skips), shown[:, place], rng, recorder, about)
        _listen(s, np.flatnonzero(likes_it), shown[:, place], pull, history, rng, recorder, about)
        played[likes_it, place] = shown[likes_it, place]
    return played


def _simulate_organic(
    world: WorldConfig, tracks: Catalog, s: ListeningSession, at_home: np.ndarray, played: np.ndarray,
    history: ListenHistory, rng: np.random.Generator, recorder: EventRecorder,
) -> None:  # fmt: skip
    """Simulate search and library: a softmax of true utility over the catalog, by importance sampling."""
    mean = world.organic_share * LISTENS
    count = np.where(at_home, rng.poisson(mean, len(s.row)), 1 + rng.poisson(max(mean - 1, 0), len(s.row)))
    count = np.minimum(count, MAX_ORGANIC) if world.organic_share > 0 else np.zeros_like(count)
    proposal = build_proposal(tracks, s.now, s.listens)
    item = proposal.draw(rng, CHOICES)
    logit = utility(tracks, s.now, item) + familiarity(s.now, s.listens, item) - np.log(proposal.chance(item))
    logit[(item[:, :, None] == played[:, None, :]).any(axis=2)] = -np.inf
    known = np.where(s.listens.present, s.listens.item, -1)
    for step in range(int(count.max(initial=0))):
        b = np.flatnonzero(count > step)
        pull = logit[b] + transition(tracks, item[b], s.previous[b])
        best = np.argmax(pull + rng.gumbel(size=pull.shape), axis=1)
        left = np.isfinite(pull[np.arange(len(b)), best])  # a tiny catalog may be exhausted
        b, best = b[left], best[left]
        choice = np.zeros(len(s.row), np.int32)
        choice[b] = item[b, best]
        logit[b] = np.where(item[b] == choice[b, None], -np.inf, logit[b])
        heard = (known == choice[:, None]).any(axis=1)
        about = {"surface": np.where(heard, LIBRARY, SEARCH)}
        want = np.full(len(s.row), SLATE_APPEAL + 1.0)  # searched tracks are liked a little more than usual
        skips = rng.random(len(b)) < 0.06
        _skip(s, b[skips], choice, rng, recorder, about)
        _listen(s, b[~skips], choice, want, history, rng, recorder, about)


def build_proposal(tracks: Catalog, now: ListenerState, listens: RecentListens) -> Mixture:
    """Build the proposal distribution of the importance sampling for B listeners."""
    released = tracks.count_released(now.time)
    new = np.searchsorted(tracks.published, now.time - NEW_DAYS * DAY_US)
    near = taste(tracks.genre_vector, now)
    chance = np.exp(near - near.max(axis=1, keepdims=True))
    return Mixture.of(tracks, released, new, listens, chance, PROPOSAL_SHARES)


def _skip(
    s: ListeningSession, b: np.ndarray, item: np.ndarray, rng: np.random.Generator, recorder: EventRecorder, about: dict
) -> None:
    part = rng.uniform(0.02, 0.3, len(b)).astype(np.float32)
    s.clock[b] += (part * TRACK_US).astype(np.int64)
    recorder.record(user=s.user[b], item=item[b], type=SKIP, time=s.clock[b], value=part, **_select(about, b))


def _listen(
    s: ListeningSession, b: np.ndarray, item: np.ndarray, pull: np.ndarray,
    history: ListenHistory, rng: np.random.Generator, recorder: EventRecorder, about: dict,
) -> None:  # fmt: skip
    """Play item for users b up to a share of its length, and possibly like, save or share it."""
    part = (1 - 0.6 * rng.random(len(b)) ** 2.5).astype(np.float32)
    s.clock[b] += (part * TRACK_US).astype(np.int64)
    s.previous[b] = item[b]
    history.add(s.row[b], item[b], s.clock[b])
    recorder.record(user=s.user[b], item=item[b], type=LISTEN, time=s.clock[b], value=part, **_select(about, b))
    fond = _sigmoid(pull[b] - SLATE_APPEAL)
    for kind, most in ((LIKE, 0.22), (SAVE, 0.10), (SHARE, 0.03)):
        does = b[rng.random(len(b)) < most * fond]
        s.clock[does] += 2 * SECOND_US
        recorder.record(user=s.user[does], item=item[does], type=kind, time=s.clock[does], **_select(about, does))


def _select(about: dict, b: np.ndarray) -> dict:
    return {name: value[b] if isinstance(value, np.ndarray) else value for name, value in about.items()}


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
