"""Stages with the changed settings of experiments' arms, built once for each distinct change."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.config.overlay import apply_overlay
from handsell.eligibility.config import Surface
from handsell.reranking.rules.live_rules import LiveRules, watch_rules
from handsell.reranking.stage import LocalReranking
from handsell.serving.graph.stages import LocalStages

KEPT = 64  # variants

RulesKey = tuple[str | None, tuple[Surface, ...]]  # rules fill slates from the catalog by the surfaces' eligibility


class StageVariants:
    """Variants of one bundle's stages. Rules that only an arm has are loaded and watched here."""

    def __init__(self, config: Config):
        self._config = config
        self._held: OrderedDict[tuple[str, str], tuple[Any, LocalStages]] = OrderedDict()  # stage, overlay → base, made
        self._rules: dict[RulesKey, tuple[Snapshot, LiveRules | None]] = {}

    def find(self, stage: str, overlay: str, stages: LocalStages) -> LocalStages:
        """Return one of the stages with an overlay's settings; raises ConfigError for settings that do not fit."""
        base, key = getattr(stages, stage), (stage, overlay)
        held = self._held.get(key)
        if held is not None and held[0] is base:
            self._held.move_to_end(key)
            return held[1]
        made = LocalStages(**{stage: self._change(base, apply_overlay(self._config, overlay))})
        self._held[key] = base, made
        while len(self._held) > KEPT:
            self._held.popitem(last=False)
        return made

    def _change(self, stage: Any, config: Config) -> Any:
        if isinstance(stage, LocalReranking):
            return stage.with_config(config, self._find_rules(stage, config))
        return stage.with_config(config) if hasattr(stage, "with_config") else stage

    def _find_rules(self, stage: LocalReranking, config: Config) -> LiveRules | None:
        """Return the stage's own rules if the variant has the same file and surfaces, otherwise the variant's."""
        if (key := _build_key(config)) == _build_key(self._config):
            return stage.rules
        eligibility = stage.eligibility.with_config(config)
        if key not in self._rules:
            self._rules[key] = stage.snapshot, watch_rules(stage.snapshot, eligibility, config)
        snapshot, rules = self._rules[key]
        if rules is not None and snapshot is not stage.snapshot:
            rules.follow(stage.snapshot, eligibility)
            self._rules[key] = stage.snapshot, rules
        return rules


def _build_key(config: Config) -> RulesKey:
    return config.reranking.rules, tuple(config.surfaces.values())
