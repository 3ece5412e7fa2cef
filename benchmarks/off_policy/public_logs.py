"""Off-policy estimates on public logs beside what other logs say about the same policies.

Open Bandit (@saito2021open): the click rate of each of two policies, estimated from the log of the other one and
measured in its own log, by campaign. Coat (@schnabel2016recommendations): the share of liked items of some policies,
estimated from self-selected ratings with learned propensities, and from ratings of random items.

    python -m benchmarks ope_logs --data DIR     # DIR holds open-bandit-sample and coat
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.report import write_report
from handsell.experiments.off_policy.clipping import choose_clipping
from handsell.experiments.off_policy.estimators import SlateRewards, Terms, build_terms, compute_weights
from handsell.experiments.off_policy.intervals import Estimate, estimate_values
from handsell.experiments.off_policy.reward_model import predict_rewards
from handsell.experiments.off_policy.support import measure_support

ESTIMATORS = ("ips", "self_normalized", "doubly_robust")
POSITIONS, DRAWS, LIKED = 3, 8, 4


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ope_logs", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds open-bandit-sample and coat")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    options = parser.parse_args()
    bandit = list(compare_campaigns(options.data / "open-bandit-sample"))
    coat = list(compare_ratings(options.data / "coat"))
    agree = sum(row["agrees"] == "yes" for row in bandit + coat)
    about = {"agreeing intervals": agree, "of": len(bandit + coat)}
    write_report("ope_logs", coat, about, options.json, {"open bandit, clicks per 1,000 impressions": bandit})


# -- Open Bandit -----------------------------------------------------------------------------------------------------


def compare_campaigns(folder: Path) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    for campaign in ("men", "women"):
        logs = {name: pd.read_csv(folder / name / campaign / f"{campaign}.csv") for name in ("random", "bts")}
        items = 1 + max(int(log.item_id.max()) for log in logs.values())
        chances = {"random": np.full((POSITIONS, items), 1 / items), "bts": count_shares(logs["bts"], items)}
        for source, target in (("random", "bts"), ("bts", "random")):
            logged, item = spread_positions(logs[source])
            own, _ = spread_positions(logs[target])
            at = np.maximum(item, 0)
            weights = compute_weights(logged, np.where(logged.shown, chances[target][np.arange(POSITIONS), at], np.nan))
            drawn = draw_items(rng, chances[target], item)
            signal = np.log(chances["bts"] + 1 / items)[..., None]  # what it shows often, it found good
            predicted = predict_rewards(
                logged, signal[np.arange(POSITIONS), at], np.stack([signal[np.arange(POSITIONS), one] for one in drawn])
            )
            measured = estimate_values(build_terms("logged", own, own.propensity), own.user)
            for name, found, about in estimate_all(logged, weights, predicted):
                for k in (*range(POSITIONS), None):
                    one = found.slate if k is None else found.positions[k]
                    truth = measured.slate if k is None else measured.positions[k]
                    yield {
                        "campaign": campaign, "policy": target, "from": source,
                        "position": "all" if k is None else str(k + 1), "estimator": name,
                        **compare(one, truth, 1_000), **about,
                    }  # fmt: skip


def spread_positions(log: pd.DataFrame) -> tuple[SlateRewards, np.ndarray]:
    """Return each impression as a slate with one shown position, and the items (N, 3), -1 where nothing is shown."""
    n, k = len(log), log.position.to_numpy() - 1
    row = np.arange(n)
    reward, propensity, item = np.zeros((n, POSITIONS)), np.full((n, POSITIONS), np.nan), np.full((n, POSITIONS), -1)
    reward[row, k], propensity[row, k], item[row, k] = log.click, log.propensity_score, log.item_id
    return SlateRewards(reward, propensity, row), item


def count_shares(log: pd.DataFrame, items: int) -> np.ndarray:
    """Return how often the policy showed each item at each position: its probabilities change all the time."""
    counts = np.zeros((POSITIONS, items))
    np.add.at(counts, (log.position.to_numpy() - 1, log.item_id.to_numpy()), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def draw_items(rng: np.random.Generator, chance: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Draw items of a policy, (DRAWS, N, 3)."""
    return np.stack(
        [
            np.stack([rng.choice(chance.shape[1], len(like), p=chance[k]) for k in range(POSITIONS)], axis=1)
            for _ in range(DRAWS)
        ]
    )


# -- Coat ------------------------------------------------------------------------------------------------------------


def compare_ratings(folder: Path) -> Iterator[dict[str, Any]]:
    chosen, random = (np.loadtxt(folder / f"{name}.ascii") for name in ("train", "test"))
    propensity = np.loadtxt(folder / "propensities.ascii")
    user, item = (np.loadtxt(folder / f"{kind}_features.ascii") for kind in ("user", "item"))
    both = np.concatenate(
        [np.repeat(user[:, None], len(item), axis=1), np.repeat(item[None], len(user), axis=0)], axis=2
    )
    features = np.concatenate([both, (user[:, None, :2] * item[None, :, :2]).sum(axis=2, keepdims=True)], axis=2)
    for name, policy in list_coat_policies(chosen, user, item):
        logs = {
            "self-selected": (chosen, propensity),
            "random": (random, np.full(random.shape, (random > 0).mean())),
        }
        found = {}
        for source, (ratings, chance) in logs.items():
            logged, weights, where = read_ratings(ratings, chance, policy)
            expected = np.einsum("ui,uif->uf", policy / policy.sum(axis=1, keepdims=True), features)
            predicted = predict_rewards(logged, features[where][:, None], expected[where[0]][None, :, None])
            found[source] = {name: (value, about) for name, value, about in estimate_all(logged, weights, predicted)}
        truth = found["random"]["self_normalized"][0].slate
        plain = (chosen[chosen > 0] >= LIKED).mean()
        for estimator, (value, about) in found["self-selected"].items():
            yield {
                "policy": name, "estimator": estimator, **compare(value.slate, truth, 100), "plain mean": 100 * plain,
                **about,
            }  # fmt: skip


def list_coat_policies(chosen: np.ndarray, user: np.ndarray, item: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield policies as probabilities over all (user, item) pairs; every user gets the same share."""
    count = (chosen > 0).sum(axis=0) + 1.0
    each = {
        "uniform": np.ones(chosen.shape),
        "often rated": np.broadcast_to(count**2, chosen.shape),
        "own gender": 0.1 + user[:, :2] @ item[:, :2].T,
        "front page": np.broadcast_to(0.2 + item[:, -2], chosen.shape),
    }
    for name, weight in each.items():
        yield name, weight / weight.sum(axis=1, keepdims=True) / len(chosen)


def read_ratings(
    ratings: np.ndarray, chance: np.ndarray, policy: np.ndarray
) -> tuple[SlateRewards, np.ndarray, tuple[np.ndarray, ...]]:
    """Return ratings as slates of one item, their weights, and the (user, item) of each.

    A rating is a draw of a pair with a probability in proportion to its chance to be rated.
    """
    where = np.nonzero(ratings)
    drawn = (chance / chance.sum())[where][:, None]
    logged = SlateRewards((ratings[where] >= LIKED).astype(float)[:, None], drawn, where[0])
    return logged, compute_weights(logged, policy[where][:, None]), where


# -- both ------------------------------------------------------------------------------------------------------------


def estimate_all(
    logged: SlateRewards, weights: np.ndarray, predicted: Any
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    clipping = choose_clipping(logged, weights, predicted)
    support = measure_support(logged, weights)
    about = {"supported": support.slate_share.value, "effective": support.slate_effective}
    for name in ESTIMATORS:
        robust = name == "doubly_robust"
        terms: Terms = build_terms(name, logged, clipping.apply(weights) if robust else weights, predicted)  # type: ignore[arg-type]
        found = estimate_values(terms, logged.user)
        yield name, found.widen(clipping.bias, clipping.slate_bias) if robust else found, about


def compare(found: Estimate, truth: Estimate, scale: float) -> dict[str, Any]:
    """Describe an estimate beside another one of an independent log; they agree if their difference may be 0."""
    gap = abs(found.value - truth.value)
    return {
        "estimate": scale * found.value,
        "±": scale * found.error,
        "measured": scale * truth.value,
        "± measured": scale * truth.error,
        "agrees": "yes" if gap <= np.hypot(found.error, truth.error) else "no",
    }
