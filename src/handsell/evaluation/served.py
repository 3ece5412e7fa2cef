"""Evaluation as served: all users request at one time, and again at several times since their last event.

This is the first figure of a report. The relevant held-out items are the same after every pause and only the time
between a user's last event and the request differs, so a loss shows how the models react to elapsed time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from handsell.core.batches import Requests
from handsell.core.funnel import Funnel
from handsell.core.protocols import Retriever
from handsell.core.units import DAY_US, MINUTE_US
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.intervals import Comparison, Mean, compare, estimate_means
from handsell.evaluation.metrics import Relevant, gains, ndcg, recall
from handsell.evaluation.replay import BLEND, FUNNEL, RANKER, mask_chunks, run_observed
from handsell.evaluation.replay_scores import TOP, cut_or_pad

PAUSES = {  # time since the user's last event, µs
    "1 minute": MINUTE_US,
    "1 day": DAY_US,
    "7 days": 7 * DAY_US,
    "30 days": 30 * DAY_US,
    "180 days": 180 * DAY_US,
}
SHORT_PAUSE, LONG_PAUSE = "1 minute", "30 days"  # the pauses that are compared, here and by the gate
BASELINE = "baseline"
BASELINE_PREFIX = "baseline: "
SMALLEST_LOSS = 0.02  # relative loss from which on it is reported


@dataclass(frozen=True, slots=True)
class RequestScores:
    """Scores of R requests by model: NDCG@10 and recall@10, NaN for requests without relevant items."""

    user: np.ndarray  # (R,) int32
    ndcg: dict[str, np.ndarray]
    recall: dict[str, np.ndarray]
    kinds: dict[str, str]


def score_models(
    requests: Requests,
    relevant: Relevant,
    funnel: Funnel,
    retrievers: Mapping[str, Retriever],
    eligibility: Eligibility,
    others: Mapping[str, np.ndarray] | None = None,
) -> RequestScores:
    """Score the lists of every retriever, the blend, the ranker and the funnel, and the lists (R, 10) of `others`."""
    parts: dict[str, list[np.ndarray]] = {}
    for rows in mask_chunks(len(requests), len(eligibility.snapshot)):
        batch = requests.take(rows)
        mask = eligibility.mask(batch)
        k = min(TOP, mask.shape[1])
        items = {name: retriever.retrieve(batch, k, mask)[0] for name, retriever in retrievers.items()}
        retrieved, ranked, slates = run_observed(funnel, batch, TOP)
        items |= {BLEND: retrieved.item, RANKER: ranked.item, FUNNEL: slates.item}
        for name, array in items.items():
            parts.setdefault(name, []).append(cut_or_pad(array, TOP))
    lists = {name: np.concatenate(arrays) for name, arrays in parts.items()} | dict(others or {})
    gain = {name: gains(items, relevant) for name, items in lists.items()}
    kinds = dict.fromkeys(retrievers, "retriever") | {name: name for name in (BLEND, RANKER, FUNNEL)}
    return RequestScores(
        requests.user,
        {name: ndcg(g, relevant, TOP) for name, g in gain.items()},
        {name: recall(g, relevant, TOP) for name, g in gain.items()},
        {name: kinds.get(name, BASELINE) for name in lists},
    )


def describe_served(scores: RequestScores, as_of: str) -> dict[str, Any]:
    """Build the report's section `served`: every model, the best baseline, and the slates compared with it.

    `as_of` describes the users and the time of the requests, in words.
    """
    means = estimate_means(scores.ndcg, scores.user)
    rows = {
        name: {"kind": scores.kinds[name], "ndcg": m.mean, "low": m.low, "high": m.high,
               "recall": float(np.nanmean(scores.recall[name]))}
        for name, m in means.items()
    }  # fmt: skip
    best = max((n for n, kind in scores.kinds.items() if kind == BASELINE), key=lambda n: means[n].mean, default=None)
    to_best = None if best is None else compare(scores.ndcg[FUNNEL], scores.ndcg[best], scores.user)
    return {
        "as_of": as_of, "requests": means[FUNNEL].requests, "models": rows, "best_baseline": best,
        "to_best_baseline": None if to_best is None else to_best.as_dict(),
        "sentence": _summarize_served(means[FUNNEL], best, to_best, as_of),
    }  # fmt: skip


def describe_pauses(by_pause: Mapping[str, RequestScores]) -> dict[str, Any]:
    """Build the report's section `by_time_away`: NDCG@10 of every model after each pause, and the loss."""
    first = by_pause[SHORT_PAUSE]
    losses = loss_by_pause(by_pause)
    return {
        "pauses": [{"name": name, "seconds": PAUSES[name] // 1_000_000} for name in by_pause],
        "requests": len(first.user),
        "models": {n: [float(np.nanmean(a.ndcg[n])) for a in by_pause.values()] for n in first.ndcg},
        "kinds": first.kinds,
        "loss": {name: c.as_dict() for name, c in losses.items()},
        "sentences": [_summarize_losses(losses)],
    }


def loss_by_pause(by_pause: Mapping[str, RequestScores]) -> dict[str, Comparison]:
    """Return model → its NDCG@10 after the pause LONG_PAUSE compared with SHORT_PAUSE, on the same requests."""
    soon, late = by_pause[SHORT_PAUSE], by_pause[LONG_PAUSE]
    return {name: compare(late.ndcg[name], soon.ndcg[name], soon.user) for name in soon.ndcg}


def _summarize_served(funnel: Mean, best: str | None, to_best: Comparison | None, as_of: str) -> str:
    sentence = (
        f"Evaluated as served ({as_of}), the slates reach NDCG@10 {funnel.mean:.4f} "
        f"(95 % interval {funnel.low:.4f} to {funnel.high:.4f})"
    )
    if best is None or to_best is None:
        return f"{sentence}."
    relation = {"beats": "better than", "loses": "worse than", "undecided": "not significantly different from"}
    ratio = f", {to_best.challenger / to_best.baseline:.2f} times its value" if to_best.baseline > 0 else ""
    name = best.removeprefix(BASELINE_PREFIX)
    return f"{sentence}: {relation[to_best.outcome]} {name}, the best simple baseline ({to_best.baseline:.4f}){ratio}."


def _summarize_losses(losses: Mapping[str, Comparison]) -> str:
    worse = {n: c for n, c in losses.items() if c.relative < -SMALLEST_LOSS and c.outcome == "loses"}
    subject = f"At {LONG_PAUSE} after the last event instead of {SHORT_PAUSE}"
    if not worse:
        return f"{subject}, no model loses more than {SMALLEST_LOSS:.0%} of NDCG@10."
    changes = ", ".join(
        f"{'slates' if name == FUNNEL else name} {c.relative:+.1%} ({c.baseline:.4f} to {c.challenger:.4f})"
        for name, c in sorted(worse.items(), key=lambda pair: pair[1].relative)
    )
    return f"{subject}, NDCG@10 changes: {changes}."
