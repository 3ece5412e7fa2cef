"""Sessions: what the users of a partition are shown, and what they then listen to.

Users live side by side and each session depends on the one before, so round r is the r-th session of
everybody who has one: arrays over users, a loop over rounds and over places within a session.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.units import DAY_US, SECOND_US
from handsell.data.config import WorldConfig
from handsell.data.world.catalog import Catalog, catalog, span, stream
from handsell.data.world.diary import HOME, IMPRESSION, LIBRARY, LIKE, LISTEN, SAVE, SEARCH, SHARE, SKIP, Diary
from handsell.data.world.draws import Mixture
from handsell.data.world.listeners import Listeners, session_starts
from handsell.data.world.memory import Memory, Recall
from handsell.data.world.policy import logging_mixture, slate
from handsell.data.world.preference import Moment, following, habit, moment, taste, utility

LISTENS = 3.4  # a session, on average
SLATE_LISTENS = 1.9  # that a home slate of ten gives when its places are looked at as `examination` says, as measured
CHOICES = 160  # tracks that come to mind in a session when somebody searches or browses the library
MOST_ORGANIC = 12
# popular, new releases, artists heard, tags of the tastes, tracks heard: where those tracks come from
COMES_TO_MIND = (0.20, 0.08, 0.10, 0.32, 0.30)
NEW_DAYS = 14
SLATE_APPEAL = 2.5  # utility at which a track that is looked at is played half of the time
_TRACK_US = 210_000_000


@dataclass
class ListeningSession:
    """One session of B different users; `clock` and `previous` move on as tracks are played."""

    row: np.ndarray  # (B,) rows of the partition's users
    user: np.ndarray  # (B,) user numbers
    slate: np.ndarray  # (B,) number of the slate within the partition
    now: Moment
    recall: Recall
    clock: np.ndarray  # (B,) int64 µs
    previous: np.ndarray  # (B,) int32 track played last in this session, -1 none


def live(world: WorldConfig, partition: int, people: Listeners) -> Diary:
    """All sessions of a partition's users."""
    tracks, diary, memory = catalog(world), Diary(), Memory.empty(len(people))
    rng = stream(world, "sessions", partition)
    row, time = session_starts(world, people, rng)
    first = np.searchsorted(row, np.arange(len(people)))
    turn = np.arange(len(row)) - first[row] if len(row) else row
    for r in range(int(turn.max(initial=-1)) + 1):
        which = np.flatnonzero(turn == r)
        who, when = row[which], time[which]
        session = ListeningSession(
            row=who,
            user=people.number[who],
            slate=which,
            now=moment(people, who, when, span(world)),
            recall=memory.recall(who),
            clock=when.copy(),
            previous=np.full(len(who), -1, np.int32),
        )
        at_home = rng.random(len(who)) < home_share(world)
        played = _home(world, tracks, session, at_home, memory, rng, diary)
        _organic(world, tracks, session, at_home, played, memory, rng, diary)
    return diary


def home_share(world: WorldConfig) -> float:
    """Share of sessions that begin on the home page."""
    return 1 - 0.65 * world.organic_share


def examination(world: WorldConfig) -> np.ndarray:
    """(slate,) chance that each place is looked at: position bias, scaled to leave `organic_share` organic."""
    base = 1 / (1 + 0.17 * np.arange(world.slate))
    wanted = (1 - world.organic_share) * LISTENS / home_share(world)
    return np.minimum(base * wanted / SLATE_LISTENS, 1.0)


def play_chance(pull: np.ndarray) -> np.ndarray:
    """Chance that a track of a slate is played once it is looked at."""
    return _sigmoid(0.8 * (pull - SLATE_APPEAL))


def _home(
    world: WorldConfig, tracks: Catalog, s: ListeningSession, at_home: np.ndarray,
    memory: Memory, rng: np.random.Generator, diary: Diary,
) -> np.ndarray:  # fmt: skip
    """Show a slate to those at home; returns (B, slate) the tracks played from it, -1 elsewhere."""
    item, propensity = slate(logging_mixture(tracks, s.now.time, s.recall), rng, world.slate)
    item[~at_home] = -1
    row, column = np.nonzero(item >= 0)
    diary.note(
        user=s.user[row], item=item[row, column], type=IMPRESSION, time=s.clock[row] + column * 1000, surface=HOME,
        slate=s.slate[row], position=column + 1, propensity=propensity[row, column],
    )  # fmt: skip
    s.clock += np.where(at_home, 2 * SECOND_US, 0)
    shown = np.maximum(item, 0)
    want = utility(tracks, s.now, shown) + habit(s.now, s.recall, shown)
    played = np.full(item.shape, -1, np.int32)
    for place, chance in enumerate(examination(world)):
        looked, coin, other = rng.random((3, len(item)))
        pull = want[:, place] + following(tracks, shown[:, place], s.previous)
        seen = (item[:, place] >= 0) & (looked < chance)
        likes_it = seen & (coin < play_chance(pull))
        skips = seen & ~likes_it & (other < 0.25)
        s.clock += np.where(seen, SECOND_US, 0)
        about = {"surface": HOME, "slate": s.slate, "position": place + 1}
        _skip(s, np.flatnonzero(skips), shown[:, place], rng, diary, about)
        _listen(s, np.flatnonzero(likes_it), shown[:, place], pull, memory, rng, diary, about)
        played[likes_it, place] = shown[likes_it, place]
    return played


def _organic(
    world: WorldConfig, tracks: Catalog, s: ListeningSession, at_home: np.ndarray, played: np.ndarray,
    memory: Memory, rng: np.random.Generator, diary: Diary,
) -> None:  # fmt: skip
    """Listens from search and library: a softmax of true utility over the catalog, by importance sampling."""
    mean = world.organic_share * LISTENS
    count = np.where(at_home, rng.poisson(mean, len(s.row)), 1 + rng.poisson(max(mean - 1, 0), len(s.row)))
    count = np.minimum(count, MOST_ORGANIC) if world.organic_share > 0 else np.zeros_like(count)
    mind = minds(tracks, s.now, s.recall)
    item = mind.draw(rng, CHOICES)
    logit = utility(tracks, s.now, item) + habit(s.now, s.recall, item) - np.log(mind.chance(item))
    logit[(item[:, :, None] == played[:, None, :]).any(axis=2)] = -np.inf
    known = np.where(s.recall.present, s.recall.item, -1)
    for step in range(int(count.max(initial=0))):
        b = np.flatnonzero(count > step)
        pull = logit[b] + following(tracks, item[b], s.previous[b])
        best = np.argmax(pull + rng.gumbel(size=pull.shape), axis=1)
        left = np.isfinite(pull[np.arange(len(b)), best])  # a tiny catalog may be exhausted
        b, best = b[left], best[left]
        choice = np.zeros(len(s.row), np.int32)
        choice[b] = item[b, best]
        logit[b] = np.where(item[b] == choice[b, None], -np.inf, logit[b])
        heard = (known == choice[:, None]).any(axis=1)
        about = {"surface": np.where(heard, LIBRARY, SEARCH)}
        want = np.full(len(s.row), SLATE_APPEAL + 1.0)  # what one looked for is liked a little more than usual
        skips = rng.random(len(b)) < 0.06
        _skip(s, b[skips], choice, rng, diary, about)
        _listen(s, b[~skips], choice, want, memory, rng, diary, about)


def minds(tracks: Catalog, now: Moment, recall: Recall) -> Mixture:
    """What comes to B listeners' minds: a proposal only, which importance weights take out of the choice again."""
    released = tracks.available(now.time)
    new = np.searchsorted(tracks.published, now.time - NEW_DAYS * DAY_US)
    near = taste(tracks.genre_vector, now)
    chance = np.exp(near - near.max(axis=1, keepdims=True))
    return Mixture.of(tracks, released, new, recall, chance, COMES_TO_MIND)


def _skip(
    s: ListeningSession, b: np.ndarray, item: np.ndarray, rng: np.random.Generator, diary: Diary, about: dict
) -> None:
    part = rng.uniform(0.02, 0.3, len(b)).astype(np.float32)
    s.clock[b] += (part * _TRACK_US).astype(np.int64)
    diary.note(user=s.user[b], item=item[b], type=SKIP, time=s.clock[b], value=part, **_at(about, b))


def _listen(
    s: ListeningSession, b: np.ndarray, item: np.ndarray, pull: np.ndarray,
    memory: Memory, rng: np.random.Generator, diary: Diary, about: dict,
) -> None:  # fmt: skip
    """Play item for users b to `value` of its length, and perhaps like, save or share it."""
    part = (1 - 0.6 * rng.random(len(b)) ** 2.5).astype(np.float32)
    s.clock[b] += (part * _TRACK_US).astype(np.int64)
    s.previous[b] = item[b]
    memory.add(s.row[b], item[b], s.clock[b])
    diary.note(user=s.user[b], item=item[b], type=LISTEN, time=s.clock[b], value=part, **_at(about, b))
    fond = _sigmoid(pull[b] - SLATE_APPEAL)
    for kind, most in ((LIKE, 0.22), (SAVE, 0.10), (SHARE, 0.03)):
        does = b[rng.random(len(b)) < most * fond]
        s.clock[does] += 2 * SECOND_US
        diary.note(user=s.user[does], item=item[does], type=kind, time=s.clock[does], **_at(about, does))


def _at(about: dict, b: np.ndarray) -> dict:
    return {name: value[b] if isinstance(value, np.ndarray) else value for name, value in about.items()}


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
