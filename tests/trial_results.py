"""Results of experiments as `handsell experiments analyze --json` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def effect(
    metric: str, arm: str, outcome: str, relative: float | None, low: float | None, high: float | None
) -> dict[str, Any]:
    return {
        "metric": metric, "arm": arm, "outcome": outcome, "control": 0.1, "treatment": 0.12, "relative": relative,
        "relative_low": low, "relative_high": high, "reason": "" if low is not None else "fewer than 100 units",
    }  # fmt: skip


def make_analysis(
    outcome: str = "beats", low: float = 0.05, reasons: Sequence[str] = (), p: float = 0.5
) -> dict[str, Any]:
    """An analysis of an arm `bold`; `p` is that of the sample ratio."""
    main = effect("clicks per shown item", "bold", outcome, 0.2, low, 0.35)
    looks = [
        {
            "until": day * 86_400_000_000,
            "effects": [effect("clicks per shown item", "bold", outcome, 0.2, 0.2 - w, 0.2 + w)],
        }
        for day, w in ((1, 9.0), (2, 0.3), (3, 0.2))
    ]
    verdict = {
        "until": 1_780_000_000_000_000, "metric": "clicks per shown item", "reasons": list(reasons), "warnings": ["w"],
        "units": {"control": 60, "bold": 40},
        "sample_ratio": {"p_value": p, "sequential_p_value": p, "expected": [0.5, 0.5]},
        "effects": [main, effect("like per day", "bold", "undecided", None, None, None)],
        "lists": {"coverage": {"control": 0.4, "bold": None}, "items per slate": {"control": 10.0, "bold": 9.5}},
    }  # fmt: skip
    return {"verdict": verdict, "looks": looks, "stopped": {}}
