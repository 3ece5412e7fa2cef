"""Candidate sources: each TOML section is one retriever's whole configuration."""

from __future__ import annotations

from pydantic import Field

from handsell.core.config.base import Section


class SourceConfig(Section):
    """What every candidate source has."""

    enabled: bool = Field(True, description="false neither fits nor asks this source")
    k: int = Field(400, ge=1, description="candidates asked of this source")
    weight: float = Field(1.0, ge=0, description="weight of its ranks in the fused order (the blend)")


class PopularityConfig(SourceConfig):
    half_life_days: float = Field(7.0, gt=0, description="age at which an interaction counts half")


class HistoryConfig(SourceConfig):
    """The user's own recent items, for surfaces that allow repeats."""

    half_life_days: float = Field(7.0, gt=0, description="decay of the history events that are summed")


class ItemKNNConfig(SourceConfig):
    neighbours: int = Field(100, ge=1, description="most similar items kept per item")
    shrinkage: float = Field(20.0, ge=0, description="added to the denominator; damps pairs with little support")
    half_life_days: float = Field(14.0, gt=0, description="decay of the history events that vote")


class ALSConfig(SourceConfig):
    embedding_size: int = Field(64, ge=2, description="D, factors per user and item")
    epochs: int = Field(15, ge=1, description="sweeps over users and items")
    reg: float = Field(0.05, ge=0, description="L2 penalty of the factors")
    alpha: float = Field(10.0, gt=0, description="confidence per unit of event weight")
    half_life_days: float = Field(28.0, gt=0, description="decay of history events at fold-in")
    seed: int = Field(0, description="of the first factors")


class TwoTowerConfig(SourceConfig):
    embedding_size: int = Field(64, ge=2, description="D, width of both towers' output")
    hidden: int = Field(128, ge=2, description="width of the layer inside a tower")
    epochs: int = Field(6, ge=1, description="passes over the positives")
    batch_size: int = Field(1024, ge=2, description="positives per step; the others of a batch are its negatives")
    learning_rate: float = Field(2e-3, gt=0, description="of Adam")
    reg: float = Field(1e-6, ge=0, description="weight decay")
    temperature: float = Field(0.07, gt=0, description="divides the inner products; lower is sharper")
    workers: int = Field(1, ge=1, description="Ray Train workers")
    seed: int = Field(0, description="of first weights and batch order")


class SASRecConfig(SourceConfig):
    enabled: bool = Field(False, description="false neither fits nor asks this source")
    embedding_size: int = Field(64, ge=2, multiple_of=2, description="D, width of the transformer and of the items")
    layers: int = Field(2, ge=1, description="of the transformer")
    length: int = Field(50, ge=1, description="T, most recent events that it reads; features.history_length bounds it")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of activations left out in training")
    temperature: float = Field(0.05, ge=0, description="divides the cosine of query and item; 0 takes inner products")
    negatives: int = Field(4096, ge=1, description="items drawn per step where there are more than 30 000 to rank")
    epochs: int = Field(30, ge=1, description="passes over the users' lines, at most")
    patience: int = Field(5, ge=1, description="epochs without a better validation NDCG@10 after which it stops")
    validation_users: int = Field(1000, ge=0, description="last likes held out to stop by, per worker; 0 for none")
    batch_size: int = Field(1024, ge=1, description="positives per step")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW, after the warm-up; falls to 0 as a cosine")
    reg: float = Field(0.01, ge=0, description="weight decay, times the learning rate")
    workers: int = Field(1, ge=1, description="Ray Train workers")
    seed: int = Field(0, description="of first weights, batch order and dropout")


class ContentConfig(SourceConfig):
    embedding_size: int = Field(128, ge=2, description="dimensions kept of the hashed text and attribute vectors")
    half_life_days: float = Field(14.0, gt=0, description="decay of history events at fold-in")


class RetrievalConfig(Section):
    popularity: PopularityConfig = PopularityConfig(k=200, weight=0.5)
    history: HistoryConfig = HistoryConfig(k=50, enabled=False)
    item_knn: ItemKNNConfig = ItemKNNConfig()
    als: ALSConfig = ALSConfig()
    two_tower: TwoTowerConfig = TwoTowerConfig()
    sasrec: SASRecConfig = SASRecConfig()
    content: ContentConfig = ContentConfig(k=300, weight=0.5)
    candidates: int = Field(1_000, ge=1, le=1_000, description="candidates passed on to ranking")
    flat_below: int = Field(50_000, ge=1, description="catalogue size up to which the index is exact")
