"""What listeners do with a slate: examine positions, play, skip, like, save and share tracks, and how they feel.

    pull       = utility + familiarity − boredom + order of tracks − satiation with the genre − shown and ignored before
    play       : an examined track is played with probability play_chance(pull + lure)
    enjoyment  = sigmoid(pull − SLATE_APPEAL), the true satisfaction with a track, 0..1
    satisfaction = mean enjoyment over positions, weighted by their probability of being examined

The terms of `handsell.data.world.preference` are used unchanged. Lure makes clicks and satisfaction differ: a track
that looks better than it is gets played and disappoints. `respond` has position bias from `examination`; repeating a
track costs boredom, and a feed of one genre costs satiation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.batches import RowBatch
from handsell.core.units import SECOND_US
from handsell.data.world.listen_history import sum_matches
from handsell.data.world.preference import familiarity, staleness, transition, utility
from handsell.data.world.session_simulation import SLATE_APPEAL, TRACK_US, examination, play_chance
from handsell.simulation.keyed_draws import Purpose
from handsell.simulation.population import Population
from handsell.simulation.population_state import PopulationState
from handsell.simulation.visits import Visits, draw_by_visit

SATIATION = 0.6  # cost of log(1 + recent listens of the genre)
IGNORED = 0.8  # cost of each recent time that the track was examined and not played
SKIP = 0.25  # probability that an examined track that is not played is skipped visibly
DISAPPOINTS = 0.5  # probability that a played track without any enjoyment is skipped soon
LIKE, SAVE, SHARE = 0.22, 0.10, 0.03  # probabilities for a track of full enjoyment


@dataclass(frozen=True, slots=True)
class Responses(RowBatch):
    """What B listeners did with slates of n tracks; false and 0 where a slate has no track."""

    item: np.ndarray  # (B, n) int32 as shown, -1 padded
    examined: np.ndarray  # (B, n) bool
    played: np.ndarray  # (B, n) bool, the clicks
    skipped: np.ndarray  # (B, n) bool, skipped at once, or soon after being played
    liked: np.ndarray  # (B, n) bool
    saved: np.ndarray  # (B, n) bool, the conversions
    shared: np.ndarray  # (B, n) bool
    part: np.ndarray  # (B, n) float32, share of the track that was played, 0 where it was not
    time: np.ndarray  # (B, n) int64 µs, when it ended
    enjoyment: np.ndarray  # (B, n) float32, true satisfaction with each track, whether played or not; hidden
    satisfaction: np.ndarray  # (B,) float64, true satisfaction with the slate; hidden
    felt: np.ndarray  # (B,) float64, mean enjoyment over the positions examined in this visit; hidden

    def __len__(self) -> int:
        return len(self.item)

    @property
    def listened(self) -> np.ndarray:
        """(B, n) bool, played and not skipped soon."""
        return self.played & ~self.skipped


def respond(
    population: Population,
    state: PopulationState,
    visits: Visits,
    item: np.ndarray,
    effect: np.ndarray | float = 0.0,
) -> Responses:
    """Return the reactions of visitors to slates (B, n) of track numbers, -1 padded, and update their state.

    `effect` (B,) multiplies enjoyment and the chance to play by 1 + effect: 0.02 is an effect of +2 % by construction.
    """
    item = np.asarray(item, np.int32)
    gain = np.broadcast_to(1.0 + np.asarray(effect, float), (len(item),))
    session = _Session.begin(population, state, visits, item, gain)
    for position in range(item.shape[1]):
        session.see(position)
    responses = session.finish()
    if len(visits):
        state.end_visits(population, visits.row, int(visits.day[0]), visits.turn, responses.felt)
    return responses


@dataclass
class _Session:
    """The visits while their slates are read from top to bottom."""

    population: Population
    state: PopulationState
    visits: Visits
    item: np.ndarray  # (B, n) int32
    gain: np.ndarray  # (B,)
    base: np.ndarray  # (B, n) pull at the start of the visit
    dice: dict[Purpose, np.ndarray]  # (B, n) in [0, 1)
    examined: np.ndarray  # (B, n) bool
    played: np.ndarray  # (B, n) bool
    skipped: np.ndarray  # (B, n) bool
    part: np.ndarray  # (B, n) float32
    ended: np.ndarray  # (B, n) int64
    enjoyment: np.ndarray  # (B, n) float32
    clock: np.ndarray  # (B,) int64 µs
    previous: np.ndarray  # (B,) int32 track listened to last in this visit, -1 none

    @classmethod
    def begin(
        cls, population: Population, state: PopulationState, visits: Visits, item: np.ndarray, gain: np.ndarray
    ) -> _Session:
        shape, shown = item.shape, np.maximum(item, 0)
        place = np.broadcast_to(np.arange(shape[1]), shape)
        looks = draw_by_visit(population, visits, Purpose.EXAMINE, place) < compute_examination(population, shape[1])
        return cls(
            population, state, visits, item, gain, compute_pull(population, state, visits, shown),
            {purpose: draw_by_visit(population, visits, purpose, shown) for purpose in _BY_ITEM},
            looks & (item >= 0), np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, np.float32),
            np.zeros(shape, np.int64), np.zeros(shape, np.float32),
            visits.time + 2 * SECOND_US, np.full(len(item), -1, np.int32),
        )  # fmt: skip

    def see(self, p: int) -> None:
        """React to position p, from 0."""
        track, examined = np.maximum(self.item[:, p], 0), self.examined[:, p]
        pull = self.base[:, p] + transition(self.population.tracks, track, self.previous) - self._satiation(track)
        self.enjoyment[:, p] = np.clip(_sigmoid(pull - SLATE_APPEAL) * self.gain, 0, 1)
        dice = {purpose: numbers[:, p] for purpose, numbers in self.dice.items()}
        plays = examined & (dice[Purpose.PLAY] < play_chance(pull + self.population.lure[track]) * self.gain)
        stops = plays & (dice[Purpose.DISAPPOINTMENT] < DISAPPOINTS * (1 - self.enjoyment[:, p]))
        skips = stops | (examined & ~plays & (dice[Purpose.SKIP] < SKIP))
        share = dice[Purpose.LISTENED_SHARE]
        self.part[:, p] = np.where(skips, 0.02 + 0.28 * share, np.where(plays, 1 - 0.6 * share**2.5, 0))
        self.clock = self.clock + examined * SECOND_US + (self.part[:, p] * TRACK_US).astype(np.int64)
        self.ended[:, p], self.played[:, p], self.skipped[:, p] = self.clock, plays, skips
        self._remember(track, heard=np.flatnonzero(plays & ~stops), passed=np.flatnonzero(examined & ~plays))

    def finish(self) -> Responses:
        listened, enjoyment = self.played & ~self.skipped, np.where(self.item >= 0, self.enjoyment, 0)
        actions = {
            name: listened & (self.dice[purpose] < most * enjoyment)
            for name, (purpose, most) in {
                "liked": (Purpose.LIKE, LIKE), "saved": (Purpose.SAVE, SAVE), "shared": (Purpose.SHARE, SHARE)
            }.items()
        }  # fmt: skip
        look = compute_examination(self.population, self.item.shape[1])
        satisfaction, seen = enjoyment @ look / look.sum(), self.examined.sum(axis=1)
        felt = np.where(seen > 0, (self.examined * enjoyment).sum(axis=1) / np.maximum(seen, 1), satisfaction)
        return Responses(
            item=self.item, examined=self.examined, played=self.played, skipped=self.skipped, **actions,
            part=self.part, time=self.ended, enjoyment=enjoyment, satisfaction=satisfaction, felt=felt,
        )  # fmt: skip

    def _satiation(self, track: np.ndarray) -> np.ndarray:
        return SATIATION * np.log1p(self.state.satiation[self.visits.row, self.population.tracks.tags[track, 0]])

    def _remember(self, track: np.ndarray, heard: np.ndarray, passed: np.ndarray) -> None:
        """Add tracks to the memories of visits `heard` and `passed`, numbers of rows."""
        row, genre = self.visits.row, self.population.tracks.tags[track, 0]
        self.previous[heard] = track[heard]
        self.state.satiation[row[heard], genre[heard]] += 1
        self.state.listens.add(row[heard], track[heard], self.clock[heard])
        self.state.ignored.add(row[passed], track[passed], self.clock[passed])


def compute_pull(population: Population, state: PopulationState, visits: Visits, item: np.ndarray) -> np.ndarray:
    """Return the pull of tracks (B, C) at the start of visits, (B, C), without satiation and the order of tracks."""
    now = population.compute_states(visits.row, visits.time)
    listens, ignored = state.listens.select(visits.row), state.ignored.select(visits.row)
    seen = np.where(ignored.present, ignored.item, -1)
    (tired,) = sum_matches(seen, item, staleness(now, ignored))
    return utility(population.tracks, now, item) + familiarity(now, listens, item) - IGNORED * tired


def compute_examination(population: Population, n: int) -> np.ndarray:
    """Return the probability that each of n positions is examined, (n,)."""
    return examination(population.world.model_copy(update={"slate": n}))


_BY_ITEM = (
    Purpose.PLAY, Purpose.SKIP, Purpose.DISAPPOINTMENT, Purpose.LISTENED_SHARE, Purpose.LIKE, Purpose.SAVE,
    Purpose.SHARE,
)  # fmt: skip


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
