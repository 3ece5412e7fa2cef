"""What a service would answer: everybody asked at one moment, and again sooner and later after their last event.

The first figure of a report. The same held-out items are asked for each time; only the clock between a user's last
event and the request differs, so that a loss is the models' reading of time and nothing else.
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
from handsell.evaluation.intervals import Comparison, compare, estimate_means
from handsell.evaluation.metrics import Relevant, gains, ndcg, recall
from handsell.evaluation.replay import BLEND, FUNNEL, MASK_CELLS, RANKER, watch
from handsell.evaluation.replay_scores import TOP

PAUSES = {
    "1 minute": MINUTE_US,
    "1 day": DAY_US,
    "7 days": 7 * DAY_US,
    "30 days": 30 * DAY_US,
    "180 days": 180 * DAY_US,
}
SOON, LATE = "1 minute", "30 days"  # between which the gate looks for a loss
BASELINE = "baseline"
BASELINE_PREFIX = "baseline: "
LITTLE = 0.02  # a relative loss that is not worth a sentence


@dataclass(frozen=True, slots=True)
class RequestScores:
    """Scores of R requests by contender: NDCG@10 and recall@10, NaN where nothing was relevant."""

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
    """The lists of every retriever, the blend, the ranker and the funnel, and of `others` (R, 10), scored."""
    lists: dict[str, list[np.ndarray]] = {}
    step = max(1, min(256, MASK_CELLS // max(len(eligibility.snapshot), 1)))
    for start in range(0, len(requests), step):
        asked = requests.take(slice(start, start + step))
        mask = eligibility.mask(asked)
        for name, retriever in retrievers.items():
            lists.setdefault(name, []).append(_ten(retriever.retrieve(asked, min(TOP, mask.shape[1]), mask)[0]))
        found, ranked, slates = watch(funnel, asked, TOP)
        for name, items in ((BLEND, found.item), (RANKER, ranked.item), (FUNNEL, slates.item)):
            lists.setdefault(name, []).append(_ten(items))
    every = {name: np.concatenate(parts) for name, parts in lists.items()} | dict(others or {})
    gain = {name: gains(items, relevant) for name, items in every.items()}
    kinds = dict.fromkeys(retrievers, "retriever") | {name: name for name in (BLEND, RANKER, FUNNEL)}
    return RequestScores(
        requests.user,
        {name: ndcg(g, relevant, TOP) for name, g in gain.items()},
        {name: recall(g, relevant, TOP) for name, g in gain.items()},
        {name: kinds.get(name, BASELINE) for name in every},
    )


def describe_served(asked: RequestScores, moment: str) -> dict[str, Any]:
    """The report's section `served`: every contender, the best baseline, and how the slates stand to it."""
    about = estimate_means(asked.ndcg, asked.user)
    rows = {
        name: {"kind": asked.kinds[name], "ndcg": m.mean, "low": m.low, "high": m.high,
               "recall": float(np.nanmean(asked.recall[name]))}
        for name, m in about.items()
    }  # fmt: skip
    best = max((n for n, kind in asked.kinds.items() if kind == BASELINE), key=lambda n: about[n].mean, default=None)
    against = None if best is None else compare(asked.ndcg[FUNNEL], asked.ndcg[best], asked.user)
    return {
        "moment": moment, "requests": about[FUNNEL].requests, "models": rows, "best_baseline": best,
        "to_best_baseline": None if against is None else against.as_dict(),
        "sentence": _served_sentence(about[FUNNEL], best, against, moment),
    }  # fmt: skip


def describe_pauses(by_pause: Mapping[str, RequestScores]) -> dict[str, Any]:
    """The report's section `by_time_away`: NDCG@10 of every contender after each pause, and what is lost by then."""
    first = by_pause[SOON]
    losses = loss_by_pause(by_pause)
    return {
        "pauses": [{"name": name, "seconds": PAUSES[name] // 1_000_000} for name in by_pause],
        "requests": len(first.user),
        "models": {n: [float(np.nanmean(a.ndcg[n])) for a in by_pause.values()] for n in first.ndcg},
        "kinds": first.kinds,
        "loss": {name: c.as_dict() for name, c in losses.items()},
        "sentences": _loss_sentences(losses),
    }


def loss_by_pause(by_pause: Mapping[str, RequestScores]) -> dict[str, Comparison]:
    """ModelScores → asked LATE against asked SOON, the same requests."""
    soon, late = by_pause[SOON], by_pause[LATE]
    return {name: compare(late.ndcg[name], soon.ndcg[name], soon.user) for name in soon.ndcg}


def _served_sentence(funnel: Any, best: str | None, against: Comparison | None, moment: str) -> str:
    said = f"Asked as a service is asked ({moment}), the slates reach NDCG@10 {funnel.mean:.4f}"
    said += f" ({funnel.low:.4f} to {funnel.high:.4f})"
    if best is None or against is None:
        return said + "."
    word = {"beats": "better than", "loses": "worse than", "undecided": "undecided against"}[against.outcome]
    ratio = f", {against.challenger / against.baseline:.2f} times as much" if against.baseline > 0 else ""
    name = best.removeprefix(BASELINE_PREFIX)
    return f"{said}: {word} {name}, the best simple baseline, at {against.baseline:.4f}{ratio}."


def _loss_sentences(losses: Mapping[str, Comparison]) -> list[str]:
    worse = {n: c for n, c in losses.items() if c.relative < -LITTLE and c.outcome == "loses"}
    if not worse:
        return [f"Asked {LATE} after the last event instead of {SOON} after it, nothing loses more than {LITTLE:.0%}."]
    told = ", ".join(
        f"{_called(name)} {c.relative:+.1%} ({c.baseline:.4f} to {c.challenger:.4f})"
        for name, c in sorted(worse.items(), key=lambda pair: pair[1].relative)
    )
    return [f"Asked {LATE} after the last event instead of {SOON} after it, NDCG@10 changes: {told}."]


def _called(name: str) -> str:
    return "slates" if name == FUNNEL else name


def _ten(items: np.ndarray) -> np.ndarray:
    short = max(0, TOP - items.shape[1])
    return np.pad(items[:, :TOP], ((0, 0), (0, short)), constant_values=-1)
