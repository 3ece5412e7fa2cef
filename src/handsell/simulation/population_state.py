"""What the listeners of a population remember, how satisfied they are, and who has left: it depends on the policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.data.world.listen_history import ListenHistory
from handsell.simulation.keyed_draws import Purpose, draw_keyed
from handsell.simulation.population import Population

EXPECTED = 0.3  # satisfaction that keeps habits as they are: about that with the logging policy of the world
LEARNING = 0.25  # weight of the latest visit in a listener's satisfaction
LEAVE = 0.02  # probability to leave after a visit of a listener whose satisfaction is as expected
LEAVE_SLOPE = 8.0
RETURN = 0.02  # probability a day that a listener who left returns
RETURN_SLOPE = 4.0
VISIT_SLOPE = 2.0  # effect of satisfaction on the number of visits
SATIATION_DAYS = 3.0  # half-life of the satiation with a genre


@dataclass
class PopulationState:
    """The state of U listeners; `respond` and `start_day` change it."""

    listens: ListenHistory
    ignored: ListenHistory  # tracks that were examined and not played
    satiation: np.ndarray  # (U, T) float, recent listens by main genre
    satisfaction: np.ndarray  # (U,) float in 0..1, moving average over visits
    away: np.ndarray  # (U,) bool, has left and not returned

    @classmethod
    def start(
        cls, population: Population, log: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    ) -> PopulationState:
        """Return the state before the first day.

        `log`: rows of listeners (N,), tracks (N,) and times (N,) µs of earlier listens, ordered by time.
        """
        users, genres = len(population), len(population.tracks.genre_vector)
        state = cls(
            ListenHistory.empty(users), ListenHistory.empty(users), np.zeros((users, genres)),
            np.full(users, EXPECTED), np.zeros(users, bool),
        )  # fmt: skip
        if log is not None:
            _fill(state.listens, *log)
        return state

    def start_day(self, population: Population, day: int) -> None:
        """Let satiation fade, and let some of those who left return."""
        self.satiation *= 0.5 ** (1 / SATIATION_DAYS)
        row = np.flatnonzero(self.away)
        chance = RETURN * np.exp(RETURN_SLOPE * (self.satisfaction[row] - EXPECTED))
        comes = draw_keyed(population.seed, Purpose.RETURN, population.people.number[row], day) < chance
        self.away[row[comes]] = False

    def compute_visit_factor(self, row: np.ndarray) -> np.ndarray:
        """Return the factor of the usual number of visits (B,): satisfied listeners come more often."""
        factor = np.clip(np.exp(VISIT_SLOPE * (self.satisfaction[row] - EXPECTED)), 0.3, 2.0)
        return np.where(self.away[row], 0.0, factor)

    def end_visits(self, population: Population, row: np.ndarray, day: int, turn: np.ndarray, felt: np.ndarray) -> None:
        """Learn from visits of different listeners (B,), whose satisfaction was `felt` (B,); some leave."""
        self.satisfaction[row] += LEARNING * (felt - self.satisfaction[row])
        chance = np.minimum(LEAVE * np.exp(-LEAVE_SLOPE * (self.satisfaction[row] - EXPECTED)), 0.5)
        leaves = draw_keyed(population.seed, Purpose.LEAVE, population.people.number[row], day, turn) < chance
        self.away[row[leaves]] = True


def _fill(history: ListenHistory, row: np.ndarray, item: np.ndarray, time: np.ndarray) -> None:
    """Add listens in rounds: each listener's first, then each one's second and so on."""
    order = np.argsort(row, kind="stable")
    row, item, time = row[order], item[order], time[order]
    turn = np.arange(len(row)) - np.searchsorted(row, row)
    last = np.searchsorted(row, row, side="right") - np.arange(len(row))
    kept = last <= history.item.shape[1]
    row, item, time, turn = row[kept], item[kept], time[kept], turn[kept]
    for r in np.unique(turn):
        of = turn == r
        history.add(row[of], item[of], time[of])
