"""What a replay says in sentences: where the funnel beats, is undecided, loses, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.evaluation.intervals import Comparison, compare_pairs
from handsell.evaluation.metrics import mean_known
from handsell.evaluation.replay import BLEND, FUNNEL, ORACLE, RANKER
from handsell.evaluation.replay_scores import HEADLINE, POPULARITY, Replay

FEW_REQUESTS = 200


@dataclass(frozen=True, slots=True)
class Standing:
    """All comparisons of the headline metric that the report needs, by contender."""

    best: str | None  # best single retriever, chosen on these very requests: the hardest rival there is
    funnel: dict[str, Comparison]  # funnel against each other contender
    to_popularity: dict[str, Comparison]  # each contender against popularity
    to_best: dict[str, Comparison]  # each contender against the best single retriever
    ranker_to_blend: Comparison
    funnel_to_ranker: Comparison
    ranker: dict[str, Comparison]  # ranker against each retriever

    @property
    def rivals(self) -> dict[str, Comparison]:
        """The funnel against every contender but the oracle and its own stages."""
        return {name: c for name, c in self.funnel.items() if name not in (ORACLE, BLEND, RANKER)}


def standing(replay: Replay, seed: int = 0) -> Standing:
    scores = replay.scores(HEADLINE)
    singles = replay.of_kind("retriever")
    best = max(singles, key=lambda name: np.nan_to_num(mean_known(scores[name])), default=None)
    pairs = {(a, b) for a in (FUNNEL, RANKER) for b in scores} | {(a, b) for a in scores for b in (POPULARITY, best)}
    values = {(a, b): (scores[a], scores[b]) for a, b in pairs if b is not None and b in scores and a != b}
    found = compare_pairs(values, replay.user, seed=seed)

    def against(baseline: str | None) -> dict[str, Comparison]:
        return {a: comparison for (a, b), comparison in found.items() if b == baseline}

    return Standing(
        best=best,
        funnel={name: found[FUNNEL, name] for name in scores if name != FUNNEL},
        to_popularity=against(POPULARITY),
        to_best=against(best),
        ranker_to_blend=found[RANKER, BLEND],
        funnel_to_ranker=found[FUNNEL, RANKER],
        ranker={name: found[RANKER, name] for name in singles},
    )


def verdicts(at: Standing) -> dict[str, list[str]]:
    """Sentences by verdict, the funnel against every single retriever and further contenders."""
    said: dict[str, list[str]] = {"beats": [], "undecided": [], "loses": []}
    for name, c in sorted(at.rivals.items(), key=lambda pair: -pair[1].baseline):
        opening = {"beats": "The funnel beats", "loses": "The funnel loses to", "undecided": "Undecided against"}
        best = " (the best single retriever)" if name == at.best else ""
        said[c.outcome].append(f"{opening[c.outcome]} {name}{best}: {_figures(c)}.")
    return said


def summary(at: Standing) -> str:
    """One sentence over all rivals."""
    sides: dict[str, list[str]] = {"beats": [], "undecided": [], "loses": []}
    for name, c in at.rivals.items():
        sides[c.outcome].append(name)
    if at.rivals and len(sides["beats"]) == len(at.rivals):
        return f"On NDCG@10 the funnel beats popularity and every single retriever ({_listed(sides['beats'])})."
    parts = [
        f"beats {_listed(sides['beats'])}" if sides["beats"] else "",
        f"loses to {_listed(sides['loses'])}" if sides["loses"] else "",
        f"is undecided against {_listed(sides['undecided'])}" if sides["undecided"] else "",
    ]
    return "On NDCG@10 the funnel " + ("; ".join(p for p in parts if p) or "stands alone: nothing to compare") + "."


def reasons(replay: Replay, at: Standing) -> list[str]:
    """Why it came out so: the ceiling, what each stage adds, and what the data lacks."""
    said = [_ceiling(replay), _stage("Ranking", "the blend of the sources", at.ranker_to_blend), _reranking(replay, at)]
    said += [_loss(name, at) for name, c in at.rivals.items() if c.outcome == "loses"]
    if ORACLE in at.funnel:
        c = at.funnel[ORACLE]
        said.append(
            f"The oracle, which knows the true preferences, reaches {c.baseline:.4f}: the funnel gets "
            f"{c.challenger / c.baseline:.0%} of what can be had."
            if c.baseline > 0
            else "The oracle finds nothing either."
        )
    if replay.cold_relevant:
        said.append(
            f"{replay.cold_relevant} of {replay.relevant} relevant items had no event in the fit window: only content "
            "can find them."
        )
    if len(replay) < FEW_REQUESTS:
        said.append(f"There are only {len(replay)} test requests: intervals are wide, and much stays undecided.")
    said += [f"{stage} failed during {n} requests: these figures are of a degraded funnel." for stage, n in
             replay.degraded.items()]  # fmt: skip
    return said


def _ceiling(replay: Replay) -> str:
    scores = replay.models[BLEND].scores
    deep = max(int(m.removeprefix("recall@")) for m in scores if m.startswith("recall@"))
    found = mean_known(scores[f"recall@{deep}"])
    return (
        f"Retrieval brings {found:.1%} of a request's relevant items among {deep} candidates; the rest is out of the "
        "ranker's reach."
    )


def _stage(stage: str, over: str, c: Comparison) -> str:
    word = {"beats": "adds to", "loses": "takes from", "undecided": "shows no decided effect on"}[c.outcome]
    return f"{stage} {word} {over}: {_figures(c)}."


def _reranking(replay: Replay, at: Standing) -> str:
    def of(name: str) -> str:
        value = mean_known(replay.models[name].scores["diversity@10"])
        return f"{value:.2f}" if np.isfinite(value) else "unknown"

    said = _stage("Re-ranking", "the ranker's plain order", at.funnel_to_ranker)
    coverage = replay.models[RANKER].coverage, replay.models[FUNNEL].coverage
    return (
        f"{said[:-1]}; diversity of a list {of(RANKER)} → {of(FUNNEL)}, coverage {coverage[0]:.1%} → {coverage[1]:.1%}."
    )


def _loss(name: str, at: Standing) -> str:
    ranker = at.ranker.get(name)
    if ranker is None or ranker.outcome != "loses":
        return f"The loss to {name} comes with re-ranking: the ranker's plain order does not lose to it."
    if at.ranker_to_blend.outcome == "beats":
        return (
            f"The loss to {name} is there before re-ranking: the ranker mends the blend but does not reach {name}; "
            "more ranker examples (split) or a higher weight of that source may help."
        )
    return (
        f"The loss to {name} is there before re-ranking: with these examples the ranker does not improve on the blend; "
        "a longer ranker window (split) may help."
    )


def _figures(c: Comparison) -> str:
    relative = f" ({c.relative:+.1%})" if np.isfinite(c.relative) else ""
    return (
        f"{c.challenger:.4f} against {c.baseline:.4f}, {c.difference:+.4f}{relative}, 95 % interval "
        f"{c.low:+.4f} to {c.high:+.4f}, {c.requests} requests of {c.users} users"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
