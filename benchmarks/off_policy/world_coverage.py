"""Off-policy estimates in the synthetic world beside the truth: error, and how often intervals cover it.

The world's logging policy shows slates; a candidate mixes the same parts in other shares. Listeners of a fixed
population of sessions look at positions and play tracks with known probabilities, so that the candidate's value is
known up to a simulation error that is reported. Each seed draws sessions, slates and plays anew.

    python -m benchmarks ope_world --seeds 200
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import write_report
from handsell.core.units import DAY_US
from handsell.data.config import WorldConfig
from handsell.data.world.catalog import Catalog, build_catalog, get_log_span
from handsell.data.world.event_recorder import LISTEN
from handsell.data.world.listen_history import MAX_LISTENS, RecentListens
from handsell.data.world.listeners import build_listeners
from handsell.data.world.mixture import Mixture
from handsell.data.world.policy import SHARES, compute_tag_chances, draw_slate
from handsell.data.world.preference import ListenerState, build_listener_states, familiarity, transition, utility
from handsell.data.world.session_simulation import examination, play_chance, simulate_sessions
from handsell.experiments.off_policy.clipping import choose_clipping
from handsell.experiments.off_policy.estimators import SlateRewards, build_terms, compute_weights
from handsell.experiments.off_policy.intervals import Method, ValueEstimates, estimate_values
from handsell.experiments.off_policy.reward_model import predict_rewards

CANDIDATES = {
    "near": (0.25, 0.10, 0.27, 0.30, 0.08),  # shares as in SHARES: popular, uniform, artists, tags, tracks heard
    "far": (0.05, 0.02, 0.38, 0.45, 0.10),
}
ESTIMATORS = ("logged", "ips", "self_normalized", "doubly_robust", "doubly_robust, clipped")
METHODS: tuple[Method, ...] = ("analytic", "bootstrap", "studentized")
SESSIONS_PER_USER, DRAWS = 3, 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ope_world", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--seeds", type=int, default=200, help="logs that are drawn")
    parser.add_argument("--slates", type=int, default=2_000, help="slates of a log")
    parser.add_argument(
        "--transitions", action="store_true", help="a play changes the chances of the next: outside the model"
    )
    parser.add_argument("--truth", type=int, default=60, help="slates per session from which the truth is computed")
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), choices=CANDIDATES)
    parser.add_argument("--json", type=Path, default=None, help="output file")
    options = parser.parse_args()
    rows = []
    for name in options.candidates:
        shares = CANDIDATES[name]
        population = Population.build(WorldConfig(users=1_000, items=2_000, artists=200, days=20), options.transitions)
        rng = np.random.default_rng([1, *map(ord, name)])
        truth, error = population.compute_value(shares, options.truth, rng)
        found = Coverage(truth)
        for seed in range(options.seeds):
            found.add(population, shares, options.slates, np.random.default_rng([2, seed]))
        rows += found.build_rows(name, error)
    about = {"seeds": options.seeds, "slates": options.slates, "transitions": options.transitions}
    write_report("ope_world", rows, about, options.json)


@dataclass(frozen=True)
class Population:
    """S sessions of users of a world, at times after its log."""

    world: WorldConfig
    tracks: Catalog
    user: np.ndarray  # (S,)
    now: ListenerState
    listens: RecentListens
    transitions: bool

    @classmethod
    def build(cls, world: WorldConfig, transitions: bool) -> Population:
        people = build_listeners(world, 0)
        arrays = simulate_sessions(world, 0, people).arrays()
        rng = np.random.default_rng(3)
        user = np.repeat(np.arange(len(people)), SESSIONS_PER_USER)
        end = get_log_span(world)[1]
        now = build_listener_states(people, user, end + rng.integers(0, 3 * DAY_US, len(user)), get_log_span(world))
        return cls(world, build_catalog(world), user, now, _find_latest(arrays, user, people.number), transitions)

    def sample(self, rows: np.ndarray) -> Population:
        now = ListenerState(*(getattr(self.now, name)[rows] for name in ListenerState.__dataclass_fields__))
        past = self.listens
        listens = RecentListens(past.item[rows], past.time[rows], past.count[rows])
        return Population(self.world, self.tracks, self.user[rows], now, listens, self.transitions)

    def build_mixture(self, shares: tuple[float, ...]) -> Mixture:
        released = self.tracks.count_released(self.now.time)
        tags = compute_tag_chances(self.tracks, self.listens)
        return Mixture.of(self.tracks, released, np.zeros_like(released), self.listens, tags, shares)

    def compute_pull(self, item: np.ndarray) -> np.ndarray:
        shown = np.maximum(item, 0)
        return utility(self.tracks, self.now, shown) + familiarity(self.now, self.listens, shown)

    def play(self, item: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return whether each item of slates (S, n) is played, (S, n) float."""
        pull, played = self.compute_pull(item), np.zeros(item.shape)
        previous = np.full(len(item), -1, np.int32)
        for k, seen in enumerate(examination(self.world)[: item.shape[1]]):
            now = pull[:, k]
            if self.transitions:
                now = now + transition(self.tracks, np.maximum(item[:, k], 0), previous)
            hit = (item[:, k] >= 0) & (rng.random(len(item)) < seen * play_chance(now))
            previous = np.where(hit, item[:, k], previous)
            played[:, k] = hit
        return played

    def compute_value(self, shares: tuple[float, ...], slates: int, rng: np.random.Generator) -> tuple[float, float]:
        """Return the plays per slate of a policy, and their standard error."""
        mixture, totals = self.build_mixture(shares), []
        for _ in range(slates):
            item, _ = draw_slate(mixture, rng, self.world.slate)
            totals.append(self.play(item, rng).sum(axis=1).mean())
        return float(np.mean(totals)), float(np.std(totals) / np.sqrt(slates))


def _find_latest(arrays: dict[str, np.ndarray], user: np.ndarray, number: np.ndarray) -> RecentListens:
    """Return the latest listens of each session's user."""
    item = np.zeros((len(number), MAX_LISTENS), np.int32)
    time = np.zeros((len(number), MAX_LISTENS), np.int64)
    heard = arrays["type"] == LISTEN
    of, what, when = (arrays[name][heard] for name in ("user", "item", "time"))
    count = np.zeros(len(number), np.int64)
    for u in range(len(number)):
        mine = np.flatnonzero(of == number[u])[-MAX_LISTENS:]
        count[u] = len(mine)
        item[u, : len(mine)], time[u, : len(mine)] = what[mine], when[mine]
    return RecentListens(item[user], time[user], count[user])


class Coverage:
    """Estimates of all seeds beside the truth."""

    def __init__(self, truth: float):
        self.truth = truth
        self.values: dict[str, list[float]] = defaultdict(list)
        self.covered: dict[tuple[str, str], list[bool]] = defaultdict(list)
        self.width: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.about: dict[str, list[float]] = defaultdict(list)

    def add(self, whole: Population, shares: tuple[float, ...], slates: int, rng: np.random.Generator) -> None:
        some = whole.sample(rng.integers(0, len(whole.user), slates))
        n = some.world.slate
        log, candidate = some.build_mixture(SHARES), some.build_mixture(shares)
        item, propensity = draw_slate(log, rng, n)
        shown = item >= 0
        logged = SlateRewards(some.play(item, rng), np.where(shown, propensity, np.nan), some.user)
        target = candidate.chance(np.maximum(item, 0))
        above = np.cumsum(np.where(shown, target, 0), axis=1) - np.where(shown, target, 0)
        target = np.where(shown, np.minimum(target / np.maximum(1 - above, 1e-12), 1.0), np.nan)
        weights = compute_weights(logged, target)
        drawn = np.stack([draw_slate(candidate, rng, n)[0] for _ in range(DRAWS)])
        features = (describe_items(some, candidate, one) for one in (item, *drawn))
        of_logged, *of_candidate = features
        predicted = predict_rewards(logged, of_logged, np.stack(of_candidate))
        clipping = choose_clipping(logged, weights, predicted)
        self.about["effective"].append(weights.sum() ** 2 / (weights**2).sum())
        self.about["clipped"].append(clipping.share)
        for name in ESTIMATORS:
            clipped = "clipped" in name
            terms = build_terms(
                name.split(",")[0],  # type: ignore[arg-type]
                logged, clipping.apply(weights) if clipped else weights, predicted,
            )  # fmt: skip
            for method in METHODS:
                found = estimate_values(terms, logged.user, method, seed=len(self.values[name]))
                self._count(name, method, found.widen(clipping.bias, clipping.slate_bias) if clipped else found)
            self.values[name].append(terms.slate)

    def _count(self, name: str, method: str, found: ValueEstimates) -> None:
        self.covered[name, method].append(found.slate.low <= self.truth <= found.slate.high)
        self.width[name, method].append(found.slate.error)

    def build_rows(self, candidate: str, error: float) -> list[dict[str, Any]]:
        rows = []
        for name in ESTIMATORS:
            values = np.array(self.values[name])
            rows.append(
                {
                    "candidate": candidate, "truth": self.truth, "± truth": 1.96 * error, "estimator": name,
                    "bias": values.mean() - self.truth, "RMSE": float(np.sqrt(((values - self.truth) ** 2).mean())),
                    "± analytic": float(np.mean(self.width[name, "analytic"])),
                    **{f"{m}, covers %": 100 * float(np.mean(self.covered[name, m])) for m in METHODS},
                    "effective": float(np.mean(self.about["effective"])),
                    "clipped": float(np.mean(self.about["clipped"])),
                }
            )  # fmt: skip
        return rows


def describe_items(some: Population, candidate: Mixture, item: np.ndarray) -> np.ndarray:
    """Return features of the reward model, (S, n, 2): popularity, and the chance that the candidate gives the item."""
    shown = np.maximum(item, 0)
    return np.log(np.stack([some.tracks.weight[shown], candidate.chance(shown) + 1e-9], axis=-1))


if __name__ == "__main__":
    main()
