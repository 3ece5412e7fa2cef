"""Changed settings of an experiment's arm: one text that travels with a request, and the config that it makes.

The text is canonical JSON, so that equal changes are equal texts and share batches and objects; "" changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from handsell.config.schema import Config
from handsell.experiments.config import Arm, Experiment
from handsell.reranking.config import RerankingConfig

NO_RULES = "none"  # value of `rules` for an arm without business rules
DIALS = tuple(name for name in RerankingConfig.model_fields if name not in ("rules", "tolerance"))


def build_overlay(config: Config, taken: Iterable[tuple[Experiment, Arm]]) -> str:
    """Return the overlay of arms that a request is in; "" if they change no setting."""
    found: dict[str, Any] = {}
    for experiment, arm in taken:
        if arm.reranking:
            found["reranking"] = merge(found.get("reranking", {}), arm.reranking)
        if arm.weights:
            found["weights"] = {**found.get("weights", {}), **arm.weights}
        if arm.rules:
            found["rules"] = arm.rules
        if arm.surface:
            surfaces = experiment.surfaces or config.surface_names
            found["surfaces"] = merge(found.get("surfaces", {}), dict.fromkeys(surfaces, arm.surface))
    return json.dumps(found, sort_keys=True, separators=(",", ":")) if found else ""


def apply_overlay(config: Config, overlay: str) -> Config:
    """Return the config with an overlay's settings; raises ValidationError for values that a section refuses."""
    if not overlay:
        return config
    changes = json.loads(overlay)
    update: dict[str, Any] = {}
    dials = dict(changes.get("reranking", {}))
    if "rules" in changes:
        dials["rules"] = None if changes["rules"] == NO_RULES else changes["rules"]
    if dials:
        update["reranking"] = RerankingConfig.model_validate(merge(config.reranking.model_dump(), dials))
    if weights := changes.get("weights"):
        sections = config.retrieval.sections
        changed = {name: sections[name].model_copy(update={"weight": w}) for name, w in weights.items()}
        update["retrieval"] = config.retrieval.with_sections(changed)
    if surfaces := changes.get("surfaces"):
        update["surfaces"] = {
            name: type(surface).model_validate(merge(surface.model_dump(), surfaces.get(name, {})))
            for name, surface in config.surfaces.items()
        }
    return config.model_copy(update=update)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base with changes, table by table."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if nested else value
    return merged
