"""The three stages, loaded from a folder of saved models: the same for evaluation and for serving."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.errors import BundleError
from handsell.core.funnel import Funnel
from handsell.core.protocols import RankingStage, RerankingStage
from handsell.eligibility.mask import Eligibility
from handsell.features.matrix import ItemValues, SnapshotValues, select_ranker_features
from handsell.ranking.ranker_files import load_ranker
from handsell.ranking.stage import FusedRanking, LocalRanking
from handsell.reranking.rules.live_rules import CompiledRules, LiveRules
from handsell.reranking.rules.reading import read_rules
from handsell.reranking.stage import LocalReranking
from handsell.retrieval import registry
from handsell.retrieval.fusion import CarriedItems
from handsell.retrieval.stage import LocalCandidates


@dataclass(frozen=True)
class Stages:
    """The three stages in this process, with the snapshot and config that they use."""

    candidates: LocalCandidates
    ranking: RankingStage
    reranking: RerankingStage
    snapshot: Snapshot
    config: Config
    items: ItemValues | None = None  # the argument of `load_stages`

    @property
    def funnel(self) -> Funnel:
        return Funnel(
            self.candidates, self.ranking, self.reranking, self.config.retrieval.candidates, self.config.ranking.ranked
        )

    def with_snapshot(self, snapshot: Snapshot) -> Stages:
        """Return the stages on another version of the live catalog, and on its item values."""
        ranking, reranking = self.ranking, self.reranking
        return replace(
            self,
            candidates=self.candidates.with_snapshot(snapshot),
            ranking=ranking.with_snapshot(snapshot) if isinstance(ranking, LocalRanking) else ranking,
            reranking=reranking.with_snapshot(snapshot) if isinstance(reranking, LocalReranking) else reranking,
            snapshot=snapshot,
            items=None,
        )

    def with_config(self, config: Config) -> Stages:
        """Return the stages with other settings of surfaces, weights of sources and re-ranking; rules stay."""
        ranking, reranking = self.ranking, self.reranking
        return replace(
            self,
            candidates=self.candidates.with_config(config),
            ranking=ranking.with_config(config) if isinstance(ranking, LocalRanking) else ranking,
            reranking=(
                reranking.with_config(config, reranking.rules) if isinstance(reranking, LocalReranking) else reranking
            ),
            config=config,
        )

    def with_rules(self) -> Stages:
        """Return the stages with the business rules of the config; raises ConfigError for a file that does not fit."""
        path = self.config.rules_path
        if path is None or not isinstance(self.reranking, LocalReranking):
            return self
        eligibility = Eligibility.of(self.snapshot, self.config)
        rules = LiveRules(CompiledRules.of(read_rules(path), self.snapshot, eligibility, self.config))
        return replace(self, reranking=replace(self.reranking, rules=rules))


def save_config(config: Config, path: Path) -> None:
    """Save the config without what no model depends on: experiments, access, addresses of stores with passwords."""
    others: dict[str, Any] = {
        "events": {"store"}, "features": {"online_store"}, "experiments": True, "holdout": True,
        "access": True, "storage": True, "logging": True, "tracing": True,
    }  # fmt: skip
    (path / "config.json").write_text(config.model_dump_json(indent=1, exclude=others))


def load_bundle_config(path: Path) -> Config:
    """Load the config that a bundle was trained with; raise BundleError if it is missing or invalid."""
    try:
        return Config.model_validate(json.loads((path / "config.json").read_text()))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path / 'config.json'} is not a handsell config: {error}; train the bundle again") from None


def apply_choices(config: Config, path: Path) -> Config:
    """Return a deployment's config, with the choices of a bundle's training where the config leaves them open.

    The choices are the sources with their settings, and the strength of re-ranking; `path` is the bundle's folder. A
    bundle without a ranker is served without one, also after the config has enabled it.
    """
    trained = load_bundle_config(path)
    update: dict[str, object] = {}
    if config.picks_sources:
        update["retrieval"] = trained.retrieval.model_copy(update={"candidates": config.retrieval.candidates})
    if config.reranking.strength == "auto":
        update["reranking"] = config.reranking.model_copy(update={"strength": trained.reranking.strength})
    if config.ranking.enabled and not trained.ranking.enabled:
        update["ranking"] = config.ranking.model_copy(update={"enabled": False})
    return config.model_copy(update=update)


def load_stages(path: Path, config: Config | None = None, *, snapshot: Snapshot | None = None,
                items: ItemValues | None = None) -> Stages:  # fmt: skip
    """Load every stage of a bundle's folder.

    `config` replaces the bundle's own (surfaces and rules of the deployment); `items` replaces the snapshot's item
    values. Raises BundleError for what is missing or does not match.
    """
    config = config or load_bundle_config(path)
    snapshot = snapshot or load_snapshot(path)
    eligibility = Eligibility.of(snapshot, config)
    return Stages(
        load_candidates(path, config, snapshot),
        load_ranking(path, config, snapshot, items),
        LocalReranking(snapshot, eligibility, config, items),
        snapshot,
        config,
        items,
    )


def load_snapshot(path: Path) -> Snapshot:
    try:
        return Snapshot.load(path / "snapshot")
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"{path / 'snapshot'} cannot be read ({error}): the bundle is incomplete") from None


def load_candidates(path: Path, config: Config, snapshot: Snapshot) -> LocalCandidates:
    """Load the enabled retrievers; raise BundleError if one is missing."""
    found = {name: registry.load(name, path / "retrievers" / name) for name in config.retrieval.enabled}
    eligibility = Eligibility.of(snapshot, config)
    return LocalCandidates(found, eligibility, config.retrieval, carried=CarriedItems.of(config))


def load_ranking(path: Path, config: Config, snapshot: Snapshot, items: ItemValues | None = None) -> RankingStage:
    """Load the ranker; raise BundleError if its features are not those that this code and config compute."""
    if not config.ranking.enabled:
        return FusedRanking()
    ranker = load_ranker(path / "ranker")
    expected = select_ranker_features(config, config.retrieval.enabled)
    if ranker.features != expected:
        missing = sorted(set(ranker.features) - set(expected))
        added = sorted(set(expected) - set(ranker.features))
        raise BundleError(
            f"{path.name} expects {len(ranker.features)} features, this deployment gives {len(expected)}"
            f" (missing: {', '.join(missing) or 'none'}; not expected: {', '.join(added) or 'none'}):"
            " train again with this config, or serve the bundle with the config it was trained with"
        )
    return LocalRanking(ranker, snapshot, items or SnapshotValues(snapshot), config)
