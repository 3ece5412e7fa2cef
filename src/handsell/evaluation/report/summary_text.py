"""The result of a replay in sentences: what the funnel beats, loses to or is undecided against, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.evaluation.intervals import Comparison, compare_pairs
from handsell.evaluation.metrics import mean_known
from handsell.evaluation.replay import BLEND, FUNNEL, ORACLE, RANKER
from handsell.evaluation.replay_scores import HEADLINE, POPULARITY, Replay

FEW_REQUESTS = 200


@dataclass(frozen=True, slots=True)
class ReplayComparisons:
    """All comparisons of the headline metric that the report needs, by model."""

    best: str | None  # the best single retriever; chosen on these same requests, so it is a strong rival
    funnel: dict[str, Comparison]  # the funnel with each other model
    to_popularity: dict[str, Comparison]  # each model with popularity
    to_best: dict[str, Comparison]  # each model with the best single retriever
    ranker_to_blend: Comparison
    funnel_to_ranker: Comparison
    ranker: dict[str, Comparison]  # the ranker with each retriever

    @property
    def rivals(self) -> dict[str, Comparison]:
        """The funnel with every model but the oracle and the funnel's own stages."""
        return {name: c for name, c in self.funnel.items() if name not in (ORACLE, BLEND, RANKER)}


def compare_models(replay: Replay, seed: int = 0) -> ReplayComparisons:
    """Compare the models of a replay by the headline metric."""
    scores = replay.scores(HEADLINE)
    retrievers = replay.of_kind("retriever")
    best = max(retrievers, key=lambda name: np.nan_to_num(mean_known(scores[name])), default=None)
    pairs = {(a, b) for a in (FUNNEL, RANKER) for b in scores} | {(a, b) for a in scores for b in (POPULARITY, best)}
    values = {(a, b): (scores[a], scores[b]) for a, b in pairs if b is not None and b in scores and a != b}
    comparisons = compare_pairs(values, replay.user, seed=seed)

    def compare_with(baseline: str | None) -> dict[str, Comparison]:
        return {a: comparison for (a, b), comparison in comparisons.items() if b == baseline}

    return ReplayComparisons(
        best=best,
        funnel={name: comparisons[FUNNEL, name] for name in scores if name != FUNNEL},
        to_popularity=compare_with(POPULARITY),
        to_best=compare_with(best),
        ranker_to_blend=comparisons[RANKER, BLEND],
        funnel_to_ranker=comparisons[FUNNEL, RANKER],
        ranker={name: comparisons[RANKER, name] for name in retrievers},
    )


def describe_outcomes(found: ReplayComparisons) -> dict[str, list[str]]:
    """Return outcome → sentences, one for each rival of the funnel."""
    opening = {"beats": "The funnel beats", "loses": "The funnel loses to", "undecided": "Undecided against"}
    sentences: dict[str, list[str]] = {"beats": [], "undecided": [], "loses": []}
    for name, c in sorted(found.rivals.items(), key=lambda pair: -pair[1].baseline):
        best = " (the best single retriever)" if name == found.best else ""
        sentences[c.outcome].append(f"{opening[c.outcome]} {name}{best}: {_figures(c)}.")
    return sentences


def summarize(found: ReplayComparisons) -> str:
    """Return one sentence about all rivals."""
    names: dict[str, list[str]] = {"beats": [], "undecided": [], "loses": []}
    for name, c in found.rivals.items():
        names[c.outcome].append(name)
    if found.rivals and len(names["beats"]) == len(found.rivals):
        return f"On NDCG@10 the funnel beats popularity and every single retriever ({_join(names['beats'])})."
    parts = [
        f"beats {_join(names['beats'])}" if names["beats"] else "",
        f"loses to {_join(names['loses'])}" if names["loses"] else "",
        f"is undecided against {_join(names['undecided'])}" if names["undecided"] else "",
    ]
    return "On NDCG@10 the funnel " + ("; ".join(p for p in parts if p) or "has no model to compare with") + "."


def explain_result(replay: Replay, found: ReplayComparisons) -> list[str]:
    """Return sentences on why: recall of the candidates, the effect of each stage, and what the data lacks."""
    sentences = [
        _describe_recall(replay),
        _describe_stage("Ranking", "the blend of the sources", found.ranker_to_blend),
        _describe_reranking(replay, found),
    ]
    sentences += [_explain_loss(name, found) for name, c in found.rivals.items() if c.outcome == "loses"]
    if ORACLE in found.funnel:
        c = found.funnel[ORACLE]
        sentences.append(
            f"The oracle, which knows the true preferences, reaches {c.baseline:.4f}: the funnel reaches "
            f"{c.challenger / c.baseline:.0%} of that."
            if c.baseline > 0
            else "The oracle finds no relevant item either."
        )
    if replay.cold_relevant:
        sentences.append(
            f"{replay.cold_relevant} of {replay.relevant} relevant items had no event in the fit window: only "
            "retrievers that use content or the user's own history can find them."
        )
    if len(replay) < FEW_REQUESTS:
        sentences.append(f"There are only {len(replay)} test requests: intervals are wide, and much is undecided.")
    sentences += [
        f"{stage} failed during {n} requests: these are the figures of a degraded funnel."
        for stage, n in replay.degraded.items()
    ]
    return sentences


def _describe_recall(replay: Replay) -> str:
    scores = replay.models[BLEND].scores
    depth = max(int(m.removeprefix("recall@")) for m in scores if m.startswith("recall@"))
    return (
        f"Retrieval finds {mean_known(scores[f'recall@{depth}']):.1%} of a request's relevant items among {depth} "
        "candidates; the ranker cannot recommend the others."
    )


def _describe_stage(stage: str, baseline: str, c: Comparison) -> str:
    effect = {"beats": "improves on", "loses": "is worse than", "undecided": "is undecided against"}[c.outcome]
    return f"{stage} {effect} {baseline}: {_figures(c)}."


def _describe_reranking(replay: Replay, found: ReplayComparisons) -> str:
    def diversity(name: str) -> str:
        value = mean_known(replay.models[name].scores["diversity@10"])
        return f"{value:.2f}" if np.isfinite(value) else "unknown"

    sentence = _describe_stage("Re-ranking", "the ranker's own order", found.funnel_to_ranker)
    coverage = replay.models[RANKER].coverage, replay.models[FUNNEL].coverage
    return (
        f"{sentence[:-1]}; diversity of a list {diversity(RANKER)} → {diversity(FUNNEL)}, "
        f"coverage {coverage[0]:.1%} → {coverage[1]:.1%}."
    )


def _explain_loss(name: str, found: ReplayComparisons) -> str:
    ranker = found.ranker.get(name)
    if ranker is None or ranker.outcome != "loses":
        return f"The loss to {name} arises in re-ranking: the ranker's own order does not lose to it."
    if found.ranker_to_blend.outcome == "beats":
        return (
            f"The loss to {name} arises before re-ranking: the ranker improves on the blend but does not reach {name}; "
            "more ranker examples (split) or a higher weight of that source may help."
        )
    return (
        f"The loss to {name} arises before re-ranking: the ranker does not improve on the blend; "
        "a longer ranker window (split) may help."
    )


def _figures(c: Comparison) -> str:
    relative = f" ({c.relative:+.1%})" if np.isfinite(c.relative) else ""
    return (
        f"{c.challenger:.4f} against {c.baseline:.4f}, {c.difference:+.4f}{relative}, 95 % interval "
        f"{c.low:+.4f} to {c.high:+.4f}, {c.requests} requests of {c.users} users"
    )


def _join(names: list[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
