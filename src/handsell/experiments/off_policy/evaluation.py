"""Estimate what a candidate would have earned on the slates that a deployment has logged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.errors import BundleError, DataError
from handsell.core.hashing import derive_seed
from handsell.events.store.interface import EventReader
from handsell.experiments.off_policy.candidate import SlatePolicy, load_policy
from handsell.experiments.off_policy.clipping import Clipping, choose_clipping
from handsell.experiments.off_policy.estimators import Estimator, SlateRewards, build_terms, compute_weights
from handsell.experiments.off_policy.intervals import ValueEstimates, estimate_values
from handsell.experiments.off_policy.logged_impressions import LoggedSlates, Origin, read_slates, require_metrics
from handsell.experiments.off_policy.probabilities import (
    PolicySlates,
    combine_propensities,
    derive_draw_seeds,
    draw_slates,
)
from handsell.experiments.off_policy.requests_as_of import build_requests_as_of
from handsell.experiments.off_policy.reward_model import predict_rewards
from handsell.experiments.off_policy.support import Support, measure_support

ESTIMATORS: tuple[Estimator, ...] = ("ips", "self_normalized", "doubly_robust")
HEADLINE: Estimator = "doubly_robust"  # its intervals cover best: docs/decisions/027-off-policy.md
REPRODUCED = 0.9  # of the logged impressions; below it, a warning


@dataclass(frozen=True)
class Question:
    """What is estimated, and from which part of the log."""

    surface: str = "home"
    metrics: tuple[str, ...] = ()  # event types that count as success; empty: those of positive weight
    origin: Origin = "served"
    slates: int = 2_000  # at most, sampled by a hash of their ids
    draws: int = 16  # slates per request of a policy that explores


@dataclass(frozen=True, slots=True)
class Redrawn:
    """What is known of the policy that logged N slates."""

    propensity: np.ndarray  # (N, n) float64, probability of the shown items
    reachable: np.ndarray | None = None  # (N, n) bool, it could have shown the candidate's item; None: not known
    reproduced: float | None = None  # share of the logged impressions that its bundles show again; None: not known


@dataclass(frozen=True)
class CandidateValue:
    """The estimated value of a candidate: successes per slate, and per impression at each position."""

    candidate: str
    bundle: str
    question: Question
    logged: SlateRewards
    since_us: int
    until_us: int
    reproduced: float | None  # share of the logged impressions that the logging bundle shows again; None: not known
    support: Support
    clipping: Clipping
    values: dict[Estimator, ValueEstimates]
    differences: dict[Estimator, ValueEstimates]  # from the logged slates
    interleaved: float = 0.0  # share of the slates after the candidate's data that were left out: two arms made them

    @property
    def refusal(self) -> str:
        return self.support.describe_refusal()

    @property
    def verdict(self) -> str:
        """Whether the candidate earns more or less than what was shown, by the interval of the difference."""
        if self.refusal:
            return "refused"
        found = self.differences[HEADLINE].slate
        return "better" if found.low > 0 else "worse" if found.high < 0 else "undecided"

    def as_dict(self) -> dict[str, Any]:
        return describe_value(self)


def evaluate_candidate(
    config: Config,
    candidate: SlatePolicy,
    question: Question,
    reader: EventReader,
    progress: Callable[[str], None] = lambda text: None,
) -> CandidateValue:
    """Estimate a candidate's value; raises DataError if the log has nothing that the candidate could be tested on."""
    metrics = require_metrics(config, question.metrics)
    if question.surface not in config.surface_names:
        raise DataError(f"surface: expected one of {', '.join(config.surface_names)}, got {question.surface!r}")
    slates = read_slates(config, reader, question.origin, metrics, question.surface)
    later = _select_later(slates, candidate, question)
    slates = leave_out_interleaved(later, question).sample(question.slates)
    progress(f"{len(slates):,} slates: slates of the candidate")
    seeds = np.array([derive_seed(one) for one in slates.recommendation_id], np.uint64)
    draws = derive_draw_seeds(seeds, question.draws)
    drawn = _draw(candidate, slates, slates.item[:, :, None], draws, reader)
    again = Redrawn(slates.propensity)
    if question.origin == "served":
        progress(f"{len(slates):,} slates: slates of the bundle that was served")
        again = _redraw(slates, drawn.item[0], draws, config, reader)
    found = estimate_candidate(candidate, question, slates, again, drawn)
    return replace(found, interleaved=float(later.interleaved.mean()))


def estimate_candidate(
    candidate: SlatePolicy, question: Question, slates: LoggedSlates, again: Redrawn, drawn: PolicySlates
) -> CandidateValue:
    """Estimate the values from the candidate's slates `drawn` and what is known of the log's policy."""
    logged = SlateRewards(slates.reward, again.propensity, slates.user)
    weights = compute_weights(logged, np.where(logged.shown, drawn.probability, np.nan))
    predicted = predict_rewards(logged, *build_features(drawn))
    clipping = choose_clipping(logged, weights, predicted)
    before = build_terms("logged", logged, weights)
    values: dict[Estimator, ValueEstimates] = {"logged": estimate_values(before, logged.user)}
    differences: dict[Estimator, ValueEstimates] = {}
    for name in ESTIMATORS:
        robust = name == "doubly_robust"
        terms = build_terms(name, logged, clipping.apply(weights) if robust else weights, predicted)
        bias = (clipping.bias, clipping.slate_bias) if robust else (np.zeros(len(clipping.bias)), 0.0)
        values[name] = estimate_values(terms, logged.user).widen(*bias)
        differences[name] = estimate_values(terms, logged.user, against=before).widen(*bias)
    return CandidateValue(
        candidate=candidate.name,
        bundle=candidate.manifest.id,
        question=question,
        logged=logged,
        since_us=int(slates.time[0]),
        until_us=int(slates.time[-1]),
        reproduced=again.reproduced,
        support=measure_support(logged, weights, again.reachable),
        clipping=clipping,
        values=values,
        differences=differences,
    )


def build_features(drawn: PolicySlates) -> tuple[np.ndarray, np.ndarray]:
    """Return features of the reward model: (N, n, 2) of the logged items, (R, N, n, 2) of the candidate's.

    They are the log-odds of the candidate's score, 0 for items that its ranking did not pass on, and whether it did.
    """

    def describe(score: np.ndarray) -> np.ndarray:
        known = np.isfinite(score)
        inside = np.clip(np.where(known, score, 0.5), 1e-4, 1 - 1e-4)
        return np.stack([np.log(inside / (1 - inside)), known.astype(float)], axis=-1)

    return describe(drawn.given_score[..., 0]), describe(np.where(drawn.item == NONE, np.nan, drawn.score))


def _select_later(slates: LoggedSlates, candidate: SlatePolicy, question: Question) -> LoggedSlates:
    """Return the slates that the candidate's models have not learned from."""
    place = "the event store" if question.origin == "served" else "the source tables"
    if not len(slates):
        raise DataError(
            f"expected slates with propensities on surface {question.surface} in {place}, got none: serve requests, or "
            "use --log tables for impressions of the source tables (position, propensity and recommendation_id)"
        )
    end = candidate.manifest.data_end_us
    later = slates.take(np.flatnonzero(slates.time >= end))
    if not len(later):
        raise DataError(
            f"bundle {candidate.manifest.id} has learned from data until {format_time(end)}, and all {len(slates):,} "
            f"slates in {place} are older (the last of {format_time(int(slates.time[-1]))}): it would be tested on "
            "what it has seen. Wait for later slates, or name a bundle that was trained before them"
        )
    return later


def leave_out_interleaved(slates: LoggedSlates, question: Question) -> LoggedSlates:
    """Return the slates that one policy made.

    An item of an interleaved slate may come from either arm, at a position that depends on what the other one picked:
    the logged propensity is that of its own arm and the coin alone. Units are interleaved by a hash of their ids, so
    that the others are a random sample.
    """
    kept = slates.take(np.flatnonzero(~slates.interleaved))
    if not len(kept):
        raise DataError(
            f"all {len(slates):,} slates on surface {question.surface} since the candidate's data are interleaved from "
            "two arms, whose propensities are not those of one policy: expected others, too. Give the experiment a "
            "`share` below 1, or wait until it has stopped"
        )
    return kept


def _draw(
    policy: SlatePolicy, slates: LoggedSlates, items: np.ndarray, seeds: np.ndarray, reader: EventReader
) -> PolicySlates:
    stages = policy.stages
    requests = build_requests_as_of(slates, seeds[:, 0], stages.snapshot, stages.config, reader)
    return draw_slates(stages, requests, items, seeds)


def _redraw(
    slates: LoggedSlates, candidate: np.ndarray, seeds: np.ndarray, config: Config, reader: EventReader
) -> Redrawn:
    """Run the log's policy again; `candidate` (N, n) are items drawn from the candidate."""
    propensity, shown = slates.propensity.copy(), ~np.isnan(slates.propensity)
    same, reachable = np.zeros(propensity.shape, bool), np.zeros(propensity.shape, bool)
    known = np.zeros(len(slates), bool)
    for bundle in dict.fromkeys(slates.bundle.tolist()):
        rows = np.flatnonzero(slates.bundle == bundle)
        try:
            policy = load_policy(config, bundle, bundle)
        except BundleError:  # removed since: its logged propensities remain
            continue
        some = slates.take(rows)
        drawn = _draw(policy, some, np.stack([some.item, candidate[rows]], axis=-1), seeds[rows], reader)
        known[rows], same[rows] = True, drawn.item[0] == some.item
        reachable[rows] = (drawn.chance[..., 1] > 0).any(axis=0)
        whole = (same[rows] | ~shown[rows]).all(axis=1)
        propensity[rows] = combine_propensities(some.propensity, drawn, whole)
    checked = shown & known[:, None]
    share = float(same[checked].mean()) if checked.any() else None
    trusted = share is not None and share >= REPRODUCED and known.all()
    return Redrawn(propensity, reachable if trusted else None, share)


def describe_value(found: CandidateValue) -> dict[str, Any]:
    """Return what `--json` prints and the tables show."""
    support, n = found.support, found.logged.reward.shape[1]
    enough = support.is_sufficient
    described = {
        "candidate": found.candidate,
        "bundle": found.bundle,
        "surface": found.question.surface,
        "metrics": list(found.question.metrics),
        "log": {
            "origin": found.question.origin,
            "slates": len(found.logged),
            "impressions": int(found.logged.shown.sum()),
            "users": len(np.unique(found.logged.user)),
            "since": format_time(found.since_us),
            "until": format_time(found.until_us),
            "reproduced": found.reproduced,
            "interleaved": found.interleaved,
        },
        "verdict": found.verdict,
        "refusal": found.refusal or None,
        "supported_share": asdict(support.slate_share),
        "effective_impressions": support.slate_effective,
        "clipping": {
            "bound": found.clipping.bound if np.isfinite(found.clipping.bound) else None,
            "share": found.clipping.share,
            "largest_bias": found.clipping.slate_bias,
        },
        "slate": None if found.refusal else _describe_estimates(found, None),
        "positions": [
            {
                "position": k + 1,
                "impressions": int(found.logged.shown[:, k].sum()),
                "supported_share": asdict(support.share[k]),
                "effective_impressions": float(support.effective[k]),
                "largest_weight": float(support.largest[k]),
                "estimates": _describe_estimates(found, k) if enough[k] else None,
            }
            for k in range(n)
        ],
    }
    return {name: _replace_unknown(value) for name, value in described.items()}


def _replace_unknown(value: Any) -> Any:
    """Return a JSON value with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _replace_unknown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replace_unknown(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _describe_estimates(found: CandidateValue, position: int | None) -> dict[str, Any]:
    def pick(estimates: ValueEstimates) -> dict[str, float]:
        return asdict(estimates.slate if position is None else estimates.positions[position])

    return {
        "logged": pick(found.values["logged"]),
        **{name: {**pick(found.values[name]), "difference": pick(found.differences[name])} for name in ESTIMATORS},
    }


def format_time(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%dT%H:%M:%SZ}"
