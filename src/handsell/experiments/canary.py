"""Start, change and end a canary: a candidate bundle that a share of users gets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from handsell.bundles.store import BundleStore
from handsell.core.errors import BundleError
from handsell.experiments.state import Canary, StateFile, now_us
from handsell.serving.guard_rails.config import CanaryConfig

MAX_SHARE = 0.5  # control must stay large enough to compare with
UNITS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class CanaryTerms:
    """When a candidate is promoted; what is None is as configured in `[canary]`."""

    duration_s: float | None = None
    min_slates: int | None = None
    max_click_loss: float | None = None


def start_canary(
    store: BundleStore, states: StateFile, bundle: str, share: float, settings: CanaryConfig, terms: CanaryTerms
) -> Canary:
    """Give a share of users a bundle, or change the share of the running canary; raises BundleError."""
    live = store.live()
    if live is None:
        raise BundleError("canary: expected a live bundle to compare with, there is none: promote one without --canary")
    if bundle == live:
        raise BundleError(f"canary: {bundle} is the live bundle: name another one (`handsell bundles list`)")
    store.verify(bundle)
    wanted = Canary(
        bundle=bundle,
        live=live,
        share=share,
        started_us=now_us(),
        duration_s=settings.hours * 3_600 if terms.duration_s is None else terms.duration_s,
        min_slates=settings.min_slates if terms.min_slates is None else terms.min_slates,
        margin=settings.max_click_loss if terms.max_click_loss is None else terms.max_click_loss,
    )

    def start(now: Canary | None) -> Canary:
        if now is None or not now.is_running:
            return wanted
        if now.bundle != bundle:
            raise BundleError(f"canary: {now.bundle} is running: end it first with `handsell bundles rollback`")
        return now.model_copy(update={"share": share})  # its users keep it where the share grows

    started = states.change_canary(start)
    assert started is not None
    return started


def parse_share(text: str) -> float:
    """Return the share of `5%` or `0.05`; raises BundleError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= share <= MAX_SHARE:
        raise BundleError(f"--canary: expected a share of users up to 50%, such as 5%; got {text!r}")
    return share


def parse_duration(text: str, option: str = "--for") -> float:
    """Return the seconds of `2h`, `30min`, `90s` or `1d`; raises BundleError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text)
    if match is None or match[2] not in UNITS:
        raise BundleError(f"{option}: expected a duration such as 2h, 30min or 90s; got {text!r}")
    return float(match[1]) * UNITS[match[2]]


def describe_canary(canary: Canary) -> str:
    """One sentence about a running or ended canary."""
    if canary.is_running:
        return f"canary {canary.bundle}: {canary.share * 100:g} % of users" + (
            f"; {canary.progress}" if canary.progress else ""
        )
    lasted = ((canary.ended_us or canary.started_us) - canary.started_us) / 1e6
    return f"canary {canary.bundle}: {canary.state.replace('_', ' ')} after {lasted:,.0f} s: {canary.reason}"
