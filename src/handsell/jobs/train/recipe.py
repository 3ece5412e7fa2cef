"""Whether a config trains what another one has trained, apart from what training chooses by itself each time."""

from __future__ import annotations

from typing import Any

from handsell.config import Config
from handsell.retrieval.config import FoldInSource, SourceConfig

PARTS = ("retrieval", "ranking", "reranking", "features")


def has_same_recipe(config: Config, trained: Config) -> bool:
    """Return whether a config, as it was written, has the settings of a bundle's config but for training's choices.

    These are the sources with weights and history settings where the config leaves them open, tuned parameters, and the
    strength of re-ranking. If they counted as a difference, a nightly training with little new data would have to beat
    its own noise.
    """
    sections = {name: _copy_choices(config, name, trained) for name in config.retrieval.sections}
    retrieval = config.retrieval.with_sections(sections)
    if config.picks_sources:
        retrieval = retrieval.model_copy(update={"sources": trained.retrieval.sources})
    reranking = config.reranking
    if reranking.strength == "auto":
        reranking = reranking.model_copy(update={"strength": trained.reranking.strength})
    features = config.features.model_copy(update={"online_store": trained.features.online_store})
    same = config.model_copy(update={"retrieval": retrieval, "reranking": reranking, "features": features})
    return all(getattr(same, part) == getattr(trained, part) for part in PARTS)


def _copy_choices(config: Config, name: str, trained: Config) -> SourceConfig:
    """Return the section of a source with what training chose in it."""
    section, other = config.retrieval[name], trained.retrieval[name]
    if name in config.tuning.sources:
        return other
    if not config.picks_sources:
        return section
    history = section.HISTORY_KEYS if isinstance(section, FoldInSource) else ("half_life_days",)
    chosen: dict[str, Any] = {
        key: getattr(other, key)
        for key in ("enabled", "weight", *history)
        if hasattr(other, key) and key not in section.model_fields_set
    }
    return section.model_copy(update=chosen)
