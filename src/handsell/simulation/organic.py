"""What visitors play from search and their library, whatever the policy shows: the source of unbiased feedback.

As in the world's log (`handsell.data.world.session_simulation`): a softmax of the true utility over the catalog, by
importance sampling, here with keyed random numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.batches import RowBatch
from handsell.data.world.preference import familiarity, utility
from handsell.data.world.session_simulation import CHOICES, LISTENS, TRACK_US, build_proposal
from handsell.simulation.behavior import LIKE, SAVE, Responses
from handsell.simulation.keyed_draws import Purpose, draw_keyed
from handsell.simulation.population import Population
from handsell.simulation.population_state import PopulationState
from handsell.simulation.visits import VisitGenerator, Visits, draw_by_visit

MOST = 6  # tracks of a visit
FONDNESS = 0.73  # searched tracks are liked a little more than usual, as in the log
PAUSE_US = 5_000_000  # before the first one


@dataclass(frozen=True, slots=True)
class OrganicListens(RowBatch):
    """Tracks that B visitors played without a recommendation, at most m each."""

    item: np.ndarray  # (B, m) int32, -1 padded
    time: np.ndarray  # (B, m) int64 µs, when it ended
    part: np.ndarray  # (B, m) float32, share of the track that was played
    liked: np.ndarray  # (B, m) bool
    saved: np.ndarray  # (B, m) bool
    known: np.ndarray  # (B, m) bool, from the library: heard before

    def __len__(self) -> int:
        return len(self.item)


def listen_organically(
    population: Population, state: PopulationState, visits: Visits, responses: Responses
) -> OrganicListens:
    """Draw what visitors play besides their slate, and add it to their memory; ends before the next visit."""
    now, heard = population.compute_states(visits.row, visits.time), state.listens.select(visits.row)
    mean = population.world.organic_share * LISTENS
    count = _draw_poisson(
        draw_keyed(population.seed, Purpose.ORGANIC_COUNT, visits.user, visits.day, visits.turn), mean
    )
    proposal = build_proposal(population.tracks, now, heard)
    item = proposal.draw(VisitGenerator(population, visits, Purpose.ORGANIC_CHOICE), CHOICES)  # type: ignore[arg-type]
    logit = utility(population.tracks, now, item) + familiarity(now, heard, item) - np.log(proposal.chance(item))
    luck = -np.log(
        -np.log(np.clip(draw_by_visit(population, visits, Purpose.ORGANIC_LUCK, item.astype(np.int64)), 1e-12, 1))
    )
    shown = (item[:, :, None] == responses.item[:, None, :]).any(axis=2)
    chosen = _select_best(np.where(shown, -np.inf, logit + luck), item, count)
    dice = {p: draw_by_visit(population, visits, p, np.arange(MOST) + 100) for p in _DICE}
    real = chosen >= 0
    part = np.where(real, 1 - 0.6 * dice[Purpose.LISTENED_SHARE] ** 2.5, 0).astype(np.float32)
    begins = np.maximum(responses.time.max(axis=1, initial=0), visits.time) + PAUSE_US
    time = begins[:, None] + np.cumsum((part * TRACK_US).astype(np.int64), axis=1)
    known = real & (np.where(heard.present, heard.item, -1)[:, None, :] == chosen[:, :, None]).any(axis=2)
    for m in range(MOST):
        some = np.flatnonzero(real[:, m])
        state.listens.add(visits.row[some], chosen[some, m], time[some, m])
    liked, saved = (real & (dice[p] < most * FONDNESS) for p, most in ((Purpose.LIKE, LIKE), (Purpose.SAVE, SAVE)))
    return OrganicListens(chosen, time, part, liked, saved, known)


_DICE = (Purpose.LISTENED_SHARE, Purpose.LIKE, Purpose.SAVE)


def _select_best(value: np.ndarray, item: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the `count` (B,) different items of highest value, (B, MOST) int32, -1 padded."""
    order = np.argsort(-value, axis=1, kind="stable")
    ranked = np.take_along_axis(item, order, 1)
    usable = np.isfinite(np.take_along_axis(value, order, 1))
    earlier = np.tril(np.ones((item.shape[1], item.shape[1]), bool), -1)
    repeated = ((ranked[:, :, None] == ranked[:, None, :]) & earlier).any(axis=2)
    best = np.argsort(repeated | ~usable, axis=1, kind="stable")[:, :MOST]
    fits = np.take_along_axis(usable & ~repeated, best, 1) & (np.arange(MOST) < count[:, None])
    return np.where(fits, np.take_along_axis(ranked, best, 1), -1).astype(np.int32)


def _draw_poisson(chance: np.ndarray, mean: float) -> np.ndarray:
    """Return Poisson numbers (B,) up to MOST for uniform numbers (B,)."""
    terms = np.cumsum([np.exp(-mean) * mean**k / np.prod(np.arange(1, k + 1), initial=1.0) for k in range(MOST)])
    return np.searchsorted(terms, chance)
