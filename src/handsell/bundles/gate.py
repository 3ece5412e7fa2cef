"""The promotion gate: a decision from the paired scores of challenger and live bundle.

The challenger passes if the lower bound of the 95 % interval of its relative difference in NDCG@10 is above
-`gate.tolerance` and every guard rail holds: coverage of items and creators, diversity and calibration error of the
lists. `check_absence_loss` adds a check for users who have been away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from handsell.bundles.config import GateConfig
from handsell.evaluation.intervals import MIN_USERS, Comparison, compare

Outcome = Literal["promote", "refuse", "insufficient"]
PASSED, FAILED = "Promoted.", "Not promoted: the live bundle stays."


@dataclass(frozen=True, slots=True)
class BundleScores:
    """Scores of one bundle on R shared requests."""

    ndcg: np.ndarray  # (R,) NDCG@10, NaN where nothing is relevant
    coverage: float  # share of the catalog in its lists
    rails: Mapping[str, float] = field(default_factory=dict)  # by metric of GUARD_RAILS; a missing one is not checked


@dataclass(frozen=True, slots=True)
class GuardRail:
    """A list metric, and the config key of its largest relative loss against the live bundle."""

    label: str
    key: str
    less_is_better: bool = False


GUARD_RAILS = {
    "creator_coverage": GuardRail("creators in its lists", "max_creator_coverage_loss"),
    "diversity": GuardRail("diversity of a list", "max_diversity_loss"),
    "calibration_error": GuardRail("calibration error of a list", "max_calibration_rise", less_is_better=True),
}


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The outcome, and the reasons as sentences.

    insufficient: too few shared requests, or the live bundle knows newer events; retrain the live recipe on the
    challenger's data and compare with that.
    """

    outcome: Outcome
    sentences: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    comparison: Comparison | None = None

    @property
    def passed(self) -> bool:
        return self.outcome == "promote"

    def as_dict(self) -> dict[str, Any]:
        comparison = self.comparison.as_dict() if self.comparison else None
        return {**asdict(self), "comparison": comparison, "passed": self.passed}


def decide_promotion(
    challenger: BundleScores,
    live: BundleScores | None,
    users: np.ndarray,
    config: GateConfig,
    *,
    retrained: bool = False,
    seed: int = 0,
) -> GateDecision:
    """Compare both on the same R requests of users (R,); `live` is None if no bundle is live.

    `retrained`: the live scores are those of its recipe, fitted on the challenger's data.
    """
    if live is None:
        warning = "First bundle: there is no live bundle to compare with, so it is promoted; read its report."
        return GateDecision("promote", ("Promoted: it is the first bundle.",), (warning,))
    rival = "the live recipe, retrained" if retrained else "the live bundle"
    found = compare(challenger.ndcg, live.ndcg, users, seed=seed)
    if found.requests < config.min_requests or found.users < MIN_USERS:
        return GateDecision("insufficient", (_insufficient(found, config),), comparison=found)
    checks = [
        _check_accuracy(found, config, rival),
        _check_coverage(challenger.coverage, live.coverage, config),
        *(_check_rail(name, challenger.rails.get(name), live.rails.get(name), config) for name in GUARD_RAILS),
    ]
    passed = all(holds for _, holds in checks)
    sentences = (PASSED if passed else FAILED, *(sentence for sentence, _ in checks if sentence))
    return GateDecision("promote" if passed else "refuse", sentences, comparison=found)


def decide_against_newer(
    challenger: BundleScores, live: BundleScores, users: np.ndarray, config: GateConfig, *, seed: int = 0
) -> GateDecision:
    """Compare with a live bundle that was fitted on newer events than the model under test.

    What that one gains by newer events says nothing about the challenger, which is fitted on everything before it is
    served: a loss of NDCG@10 up to `gate.max_age_loss` decides nothing; the guard rails hold as always.
    """
    strict = decide_promotion(challenger, live, users, config, seed=seed)
    found = strict.comparison
    if strict.outcome != "refuse" or found is None or config.max_age_loss <= config.tolerance:
        return strict
    lenient = config.model_copy(update={"tolerance": config.max_age_loss})
    if not decide_promotion(challenger, live, users, lenient, seed=seed).passed:
        return strict
    sentence = (
        f"Undecided: the live bundle was fitted on newer events than the model under test, whose NDCG@10 is "
        f"{found.challenger:.4f} against {found.baseline:.4f}: {found.relative:+.1%}, within {config.max_age_loss:.0%} "
        "(gate.max_age_loss)."
    )
    return replace(strict, outcome="insufficient", sentences=(sentence,))


def check_absence_loss(decision: GateDecision, loss: Comparison, config: GateConfig) -> GateDecision:
    """Return the decision, or a refusal if the challenger is much worse for users who have been away.

    `loss` compares its slates for requests long after a user's last event with those right after it. For a first
    bundle, and where the loss may be chance, it is a warning.
    """
    if not loss.relative < -config.max_absence_loss:
        return decision
    sentence = (
        f"For requests 30 days instead of 1 minute after the last event, its slates lose {-loss.relative:.1%} of "
        f"NDCG@10: beyond {config.max_absence_loss:.0%} (gate.max_absence_loss)."
    )
    if decision.comparison is None or loss.outcome != "loses":
        return replace(decision, warnings=(*decision.warnings, sentence))
    others = decision.sentences[1:] if decision.outcome != "insufficient" else decision.sentences
    return replace(decision, outcome="refuse", sentences=(FAILED, sentence, *others))


def _insufficient(found: Comparison, config: GateConfig) -> str:
    return (
        f"Undecided: expected at least {config.min_requests} shared requests (gate.min_requests) of {MIN_USERS} users, "
        f"got {found.requests} of {found.users}: retrain the live recipe on the challenger's data to compare."
    )


def _check_accuracy(found: Comparison, config: GateConfig, rival: str) -> tuple[str, bool]:
    """Return a sentence, and whether the loss of NDCG@10 is within the tolerance."""
    requests = f"{found.requests} requests of {found.users} users"
    if not np.isfinite(found.relative_low):  # the rival scored 0, in all or in some resamples
        holds = found.low >= 0
        result = f"NDCG@10 {found.challenger:.4f} against {found.baseline:.4f} of {rival} ({requests})"
        word = "it is not worse" if holds else "it may be worse"
        return f"{result}: too few hits to estimate a relative difference; {word}.", holds
    holds = found.relative_low > -config.tolerance
    result = (
        f"NDCG@10 {found.challenger:.4f} against {found.baseline:.4f} of {rival}: {found.relative:+.1%}, "
        f"95 % interval {found.relative_low:+.1%} to {found.relative_high:+.1%} ({requests})"
    )
    if holds:
        return f"{result}; the lower bound is above −{config.tolerance:.1%} (gate.tolerance).", True
    if found.outcome == "loses":
        return f"{result}; it is worse, and the lower bound is below −{config.tolerance:.1%} (gate.tolerance).", False
    return (
        f"{result}; a loss beyond −{config.tolerance:.1%} cannot be ruled out: "
        "more test requests (split) would narrow the interval.",
        False,
    )


def _check_coverage(challenger: float, live: float, config: GateConfig) -> tuple[str, bool]:
    loss = 1 - challenger / live if live > 0 else 0.0
    holds = not loss > config.max_coverage_loss
    return (
        f"Its lists cover {challenger:.1%} of the catalog, the live ones {live:.1%}: the loss is "
        f"{'within' if holds else 'beyond'} {config.max_coverage_loss:.0%} (gate.max_coverage_loss)."
    ), holds


def _check_rail(name: str, challenger: float | None, live: float | None, config: GateConfig) -> tuple[str, bool]:
    """Return a sentence, empty if either bundle has no value, and whether the guard rail holds."""
    if challenger is None or live is None or not (np.isfinite(challenger) and np.isfinite(live) and live > 0):
        return "", True
    rail, most = GUARD_RAILS[name], getattr(config, GUARD_RAILS[name].key)
    change = challenger / live - 1
    worse = change if rail.less_is_better else -change
    holds = not worse > most
    return (
        f"The {rail.label}: {challenger:.3f} against {live:.3f}, {change:+.1%}: {'within' if holds else 'beyond'} "
        f"{most:.0%} (gate.{rail.key})."
    ), holds
