"""Choose how a fitted source weighs the events of a history, on validation requests and without another fit."""

from __future__ import annotations

from typing import Any

from handsell.config import Config
from handsell.data.interactions import Interactions
from handsell.jobs.tuning.validation_window import ValidationWindow
from handsell.retrieval.config import FoldInSource
from handsell.retrieval.models.popularity import fit_popularity

EXPONENTS = (0.0, 0.5)
TRIED: dict[str, tuple[float, ...]] = {
    "half_life_days": (365.0, 1e6),
    "half_life_events": (20.0, 10.0, 5.0, 2.0, 1.0),  # 1: the latest likes decide, as in short sessions
    "dislikes": (0.0,),
    "weight_exponent": EXPONENTS,
    "repeat_exponent": EXPONENTS,
    "popularity_exponent": EXPONENTS,
}
POPULARITY_HALF_LIVES_DAYS = (30.0, 365.0, 1e6)


def choose_history_settings(model: Any, section: FoldInSource, window: ValidationWindow) -> tuple[Any, dict[str, Any]]:
    """Return the model with the best settings found, one setting after the other; those of the config are kept."""
    best = {name: getattr(section, name) for name in section.HISTORY_KEYS}
    value = window.model_ndcg(model)
    has_dislikes = bool((window.evaluation.requests.history.weight < 0).any())
    for name in section.HISTORY_KEYS:
        if name in section.model_fields_set or (name == "dislikes" and not has_dislikes):
            continue
        start = best
        for other in TRIED[name]:
            trial = {**start, name: other}
            found = window.model_ndcg(model.with_history_weights(**trial))
            if found > value:
                best, value = trial, found
    return model.with_history_weights(**best), {name: best[name] for name in section.HISTORY_KEYS}


def choose_popularity_half_life(
    model: Any, events: Interactions, config: Config, window: ValidationWindow
) -> tuple[Any, dict[str, Any]]:
    """Return the popularity model with the best half-life: a log of years needs a longer one than a log of weeks."""
    days = config.retrieval["popularity"].half_life_days
    value = window.model_ndcg(model)
    for other in POPULARITY_HALF_LIVES_DAYS:
        section = config.retrieval["popularity"].model_copy(update={"half_life_days": other})
        trial = fit_popularity(events, section)
        found = window.model_ndcg(trial)
        if found > value:
            model, days, value = trial, other, found
    return model, {"half_life_days": days}
