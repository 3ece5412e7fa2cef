"""Retrievers, ranker and re-ranker: each TOML section is one component's whole configuration."""

from __future__ import annotations

from pydantic import Field

from handsell.core.config.base import Section


class SourceConfig(Section):
    """What every candidate source has."""

    enabled: bool = True
    k: int = Field(400, ge=1, description="candidates asked of this source")
    weight: float = Field(1.0, ge=0, description="weight of its ranks in the fused order (the blend)")


class PopularityConfig(SourceConfig):
    half_life_days: float = Field(7.0, gt=0, description="age at which an interaction counts half")


class HistoryConfig(SourceConfig):
    """The user's own recent items, for surfaces that allow repeats."""

    half_life_days: float = Field(7.0, gt=0)


class ItemKNNConfig(SourceConfig):
    neighbours: int = Field(100, ge=1)
    shrinkage: float = Field(20.0, ge=0, description="added to the denominator; damps pairs with little support")
    half_life_days: float = Field(14.0, gt=0, description="decay of the history events that vote")


class ALSConfig(SourceConfig):
    embedding_size: int = Field(64, ge=2)
    epochs: int = Field(15, ge=1)
    reg: float = Field(0.05, ge=0)
    alpha: float = Field(10.0, gt=0, description="confidence per unit of event weight")
    half_life_days: float = Field(28.0, gt=0, description="decay of history events at fold-in")
    seed: int = 0


class TwoTowerConfig(SourceConfig):
    embedding_size: int = Field(64, ge=2)
    hidden: int = Field(128, ge=2)
    epochs: int = Field(6, ge=1)
    batch_size: int = Field(1024, ge=2)
    learning_rate: float = Field(2e-3, gt=0)
    reg: float = Field(1e-6, ge=0)
    temperature: float = Field(0.07, gt=0)
    workers: int = Field(1, ge=1, description="Ray Train workers")
    seed: int = 0


class ContentConfig(SourceConfig):
    embedding_size: int = Field(128, ge=2, description="dimensions kept of the hashed text and attribute vectors")
    half_life_days: float = Field(14.0, gt=0)


class RetrievalConfig(Section):
    popularity: PopularityConfig = PopularityConfig(k=200, weight=0.5)
    history: HistoryConfig = HistoryConfig(k=50, enabled=False)
    item_knn: ItemKNNConfig = ItemKNNConfig()
    als: ALSConfig = ALSConfig()
    two_tower: TwoTowerConfig = TwoTowerConfig()
    content: ContentConfig = ContentConfig(k=300, weight=0.5)
    candidates: int = Field(1_000, ge=1, le=1_000, description="candidates passed on to ranking")
    flat_below: int = Field(50_000, ge=1, description="catalogue size up to which the index is exact")


class RankingConfig(Section):
    enabled: bool = Field(True, description="false serves the fused order of the sources (the blend)")
    ranked: int = Field(50, ge=1, le=1_000, description="candidates passed on to re-ranking")
    trees: int = Field(200, ge=1)
    depth: int = Field(5, ge=1)
    learning_rate: float = Field(0.08, gt=0)
    min_child_weight: float = Field(20.0, ge=0)
    negatives: int = Field(200, ge=1, description="candidates that the user did not act on, kept per request")
    early_stopping_rounds: int = Field(20, ge=1)
    workers: int = Field(1, ge=1, description="Ray Train workers; each reads its own shard of whole groups")
    seed: int = 0


class RerankingConfig(Section):
    diversity: float = Field(
        0.05,
        ge=0,
        le=1,
        description="MMR: 0 orders by score alone, 1 by difference from what is already chosen",
    )
    same_creator_gap: int = Field(1, ge=0, description="items between two of one creator; 0 switches it off")
