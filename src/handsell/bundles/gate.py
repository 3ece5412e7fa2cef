"""The promotion gate: a pure decision from paired scores of challenger and live bundle.

The challenger passes where it is not worse than the live one beyond the stated tolerance (the lower 95 %
bound of the relative difference in NDCG@10) and its lists keep the guard rails: not much narrower (coverage of items
and of creators), not much more alike (diversity), not much further from the user's own mix (calibration error), not
much worse for users who have been away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from handsell.bundles.config import GateConfig
from handsell.evaluation.intervals import MIN_USERS, Comparison, compare

Outcome = Literal["promote", "refuse", "insufficient"]


@dataclass(frozen=True, slots=True)
class Lists:
    """What one bundle answered to R shared requests."""

    ndcg: np.ndarray  # (R,) NDCG@10, NaN where nothing was relevant
    coverage: float  # share of the catalog in its lists
    rails: Mapping[str, float] = field(default_factory=dict)  # metric of RAILS → value; one that is missing holds


@dataclass(frozen=True, slots=True)
class Rail:
    """How far a list metric may get worse, relative to the live bundle's, by which key of the gate's config."""

    said: str
    key: str
    less_is_better: bool = False


RAILS = {
    "creator_coverage": Rail("creators in its lists", "max_creator_coverage_loss"),
    "diversity": Rail("diversity of a list", "max_diversity_loss"),
    "calibration_error": Rail("distance from the user's own mix", "max_calibration_rise", less_is_better=True),
}


@dataclass(frozen=True, slots=True)
class Gate:
    """The verdict, in one word and in sentences for a person.

    insufficient: too few shared requests to say; retrain the live recipe with the challenger's cut-off and
    judge again with `retrained=True`.
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


def judge(
    challenger: Lists,
    live: Lists | None,
    users: np.ndarray,
    config: GateConfig,
    *,
    retrained: bool = False,
    seed: int = 0,
) -> Gate:
    """Decide from the same R requests, users (R,); `live` is None where no bundle is live.

    `retrained`: the live scores are those of its recipe fitted up to the challenger's cut-off.
    """
    if live is None:
        warning = "First bundle: nothing is live to compare it with, so it is promoted as it is; read its report."
        return Gate("promote", ("Promoted: it is the first bundle.",), (warning,))
    against = "the live recipe, retrained" if retrained else "the live bundle"
    found = compare(challenger.ndcg, live.ndcg, users, seed=seed)
    if found.requests < config.min_requests or found.users < MIN_USERS:
        return Gate("insufficient", (_too_few(found, config),), comparison=found)
    accuracy, holds = _accuracy(found, config, against)
    spread, wide = _coverage(challenger.coverage, live.coverage, config)
    rails = [_rail(name, challenger.rails.get(name), live.rails.get(name), config) for name in RAILS]
    kept = holds and wide and all(ok for _, ok in rails)
    verdict = "Promoted." if kept else "Not promoted: the live bundle stays."
    sentences = (verdict, accuracy, spread, *(said for said, _ in rails if said))
    return Gate("promote" if kept else "refuse", sentences, comparison=found)


def judge_absence(gate: Gate, loss: Comparison, config: GateConfig) -> Gate:
    """The same verdict, or a refusal where the challenger answers much worse to users who have been away.

    `loss` compares its slates for requests long after a user's last event with those right after it. It cannot be
    the first bundle's reason to stay out: nothing would serve; then it is a warning.
    """
    if not loss.relative < -config.max_absence_loss:
        return gate
    said = (
        f"Asked 30 days after the last event instead of at once, its slates lose {-loss.relative:.1%} of NDCG@10: "
        f"beyond {config.max_absence_loss:.0%} (gate.max_absence_loss)"
    )
    if gate.comparison is None or loss.outcome != "loses":
        return replace(gate, warnings=(*gate.warnings, f"{said}."))
    others = gate.sentences[1:] if gate.outcome != "insufficient" else gate.sentences  # without the verdict
    return replace(gate, outcome="refuse", sentences=("Not promoted: the live bundle stays.", f"{said}.", *others))


def _too_few(found: Comparison, config: GateConfig) -> str:
    return (
        f"Undecided: at least {config.min_requests} shared requests (gate.min_requests) of {MIN_USERS} users "
        f"are expected, got {found.requests} of {found.users}: "
        "retrain the live recipe with the challenger's cut-off to compare."
    )


def _accuracy(found: Comparison, config: GateConfig, against: str) -> tuple[str, bool]:
    many = f"{found.requests} requests of {found.users} users"
    if not np.isfinite(found.relative_low):  # the baseline found nothing, in all or in some draws
        holds = found.low >= 0
        said = f"NDCG@10 {found.challenger:.4f} against {found.baseline:.4f} of {against} ({many})"
        return f"{said}: a share cannot be told of so little, {'not worse' if holds else 'perhaps worse'}.", holds
    holds = found.relative_low > -config.tolerance
    said = (
        f"NDCG@10 {found.challenger:.4f} against {found.baseline:.4f} of {against}: {found.relative:+.1%}, "
        f"95 % interval {found.relative_low:+.1%} to {found.relative_high:+.1%} ({many})"
    )
    if holds:
        return f"{said}; the lower bound is above −{config.tolerance:.1%} (gate.tolerance).", True
    if found.outcome == "loses":
        return f"{said}; it is worse, and by more than −{config.tolerance:.1%} cannot be ruled out.", False
    return (
        f"{said}; a loss beyond −{config.tolerance:.1%} cannot be ruled out: "
        "more test requests (split) would narrow the interval.",
        False,
    )


def _coverage(challenger: float, live: float, config: GateConfig) -> tuple[str, bool]:
    loss = 1 - challenger / live if live > 0 else 0.0
    holds = not loss > config.max_coverage_loss
    said = f"Its lists cover {challenger:.1%} of the catalog, those of the live one {live:.1%}"
    bound = f"{config.max_coverage_loss:.0%} (gate.max_coverage_loss)"
    return f"{said}: the loss is {'within' if holds else 'beyond'} {bound}.", holds


def _rail(name: str, challenger: float | None, live: float | None, config: GateConfig) -> tuple[str, bool]:
    """What is said of one guard rail, nothing where either side has no value, and whether it holds."""
    if challenger is None or live is None or not (np.isfinite(challenger) and np.isfinite(live) and live > 0):
        return "", True
    rail, most = RAILS[name], getattr(config, RAILS[name].key)
    change = challenger / live - 1
    worse = change if rail.less_is_better else -change
    holds = not worse > most
    return (
        f"The {rail.said}: {challenger:.3f} against {live:.3f}, {change:+.1%}: {'within' if holds else 'beyond'} "
        f"{most:.0%} (gate.{rail.key})."
    ), holds
