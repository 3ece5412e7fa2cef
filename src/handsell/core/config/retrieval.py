"""Candidate sources: each TOML section is one retriever's whole configuration."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

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
    asymmetry: float = Field(0.5, ge=0, le=1, description="share of the history item in the norm; 0.5 is the cosine")
    user_exponent: float = Field(0.0, ge=0, le=2, description="a pair counts by its user's degree to this power less")
    half_life_days: float = Field(14.0, gt=0, description="decay of the history events that vote")


class UserKNNConfig(SourceConfig):
    enabled: bool = Field(False, description="false neither fits nor asks this source")
    neighbours: int = Field(200, ge=1, description="most similar users that are asked")
    shrinkage: float = Field(5.0, ge=0, description="added to the denominator; damps users with little in common")
    item_exponent: float = Field(
        0.5, ge=0, le=2, description="an item in common counts by its degree to this power less"
    )
    sharpness: float = Field(1.0, gt=0, description="power of the similarity with which a neighbour speaks")
    half_life_days: float = Field(28.0, gt=0, description="decay of the history's and of the neighbours' events")


class EASEConfig(SourceConfig):
    enabled: bool = Field(False, description="false neither fits nor asks this source")
    reg: float = Field(300.0, gt=0, description="L2 penalty of the item–item weights")
    user_exponent: float = Field(0.0, ge=0, le=1, description="a user's row is divided by their degree to this power")
    item_exponent: float = Field(0.0, ge=0, le=1, description="an item's column, likewise")
    answer_exponent: float = Field(0.0, ge=0, le=1, description="power of an item's degree in its answer")
    neighbours: int = Field(1_000, ge=1, description="strongest weights kept per item")
    max_items: int = Field(20_000, ge=1, description="the most liked items that are fitted; the rest stay unknown")
    half_life_days: float = Field(28.0, gt=0, description="decay of the history events that vote")


class ALSConfig(SourceConfig):
    embedding_size: int = Field(64, ge=2, description="D, factors per user and item")
    epochs: int = Field(8, ge=1, description="sweeps over users and items, from a spectral start")
    reg: float = Field(0.001, gt=0, description="L2 penalty of factors per unit of a row's evidence")
    frequency_exponent: float = Field(
        1.0, ge=0, description="how the penalty grows with a row's evidence; 0 not at all"
    )
    alpha: float = Field(3.0, gt=0, description="confidence of a seen pair per unit of event weight; unseen pairs: 1")
    blocks: int = Field(1, ge=1, description="Ray tasks per half sweep; 1 fits in one task")
    half_life_days: float = Field(28.0, gt=0, description="decay of history events at fold-in")
    seed: int = Field(0, description="of the first factors")


class SpectralConfig(SourceConfig):
    enabled: bool = Field(False, description="false neither fits nor asks this source")
    embedding_size: int = Field(256, ge=2, description="D, leading singular vectors kept")
    ridge: float = Field(
        0.03, ge=0, description="half-way point of the filter, a share of the largest squared value; 0: ideal"
    )
    user_exponent: float = Field(0.5, ge=0, le=1, description="a user's row is divided by their degree to this power")
    item_exponent: float = Field(0.5, ge=0, le=1, description="an item's column, likewise")
    answer_exponent: float = Field(0.5, ge=0, le=1, description="power of an item's degree in its answer")
    half_life_days: float = Field(28.0, gt=0, description="decay of history events at fold-in")
    seed: int = Field(0, description="of the randomised decomposition")


class SVDConfig(SourceConfig):
    enabled: bool = Field(False, description="false neither fits nor asks this source")
    embedding_size: int = Field(64, ge=2, description="D, leading singular vectors kept")
    half_life_days: float = Field(28.0, gt=0, description="decay of history events at fold-in")
    seed: int = Field(0, description="of the randomised decomposition")


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


class ContentConfig(SourceConfig):
    embedding_size: int = Field(128, ge=2, description="dimensions kept of the hashed text and attribute vectors")
    half_life_days: float = Field(14.0, gt=0, description="decay of history events at fold-in")


class BlendConfig(SourceConfig):
    """Several retrievers as one source, for where there is no ranker; each is fitted by its own section."""

    enabled: bool = Field(False, description="false neither fits nor asks this source")
    parts: dict[str, float] = Field(
        {"item_knn": 0.5, "als": 0.5}, min_length=1, description="weight of each part's scores, by retriever"
    )
    depth: int = Field(200, ge=2, description="items asked of each part; its scores are standardised over them")


class RetrievalConfig(Section):
    popularity: PopularityConfig = PopularityConfig(k=200, weight=0.5)
    history: HistoryConfig = HistoryConfig(k=50, enabled=False)
    item_knn: ItemKNNConfig = ItemKNNConfig()
    als: ALSConfig = ALSConfig()
    two_tower: TwoTowerConfig = TwoTowerConfig()
    content: ContentConfig = ContentConfig(k=300, weight=0.5)
    spectral: SpectralConfig = SpectralConfig()
    svd: SVDConfig = SVDConfig()
    ease: EASEConfig = EASEConfig()
    user_knn: UserKNNConfig = UserKNNConfig()
    blend: BlendConfig = BlendConfig()
    candidates: int = Field(1_000, ge=1, le=1_000, description="candidates passed on to ranking")
    flat_below: int = Field(50_000, ge=1, description="catalogue size up to which the index is exact")

    @model_validator(mode="after")
    def _blends_what_there_is(self) -> Self:
        sources = {name for name, section in self if isinstance(section, SourceConfig)}
        known = sorted(sources - {"blend", "history"})  # a blend standardises by items outside the history
        unknown = [name for name in self.blend.parts if name not in known]
        if unknown:
            raise ValueError(f"blend.parts has {', '.join(unknown)}: expected retrievers of {', '.join(known)}")
        return self
