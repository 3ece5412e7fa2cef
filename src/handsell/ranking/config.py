"""Settings of the ranker: `[ranking]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from handsell.core.section import Section


class TransformerConfig(Section):
    embedding_size: int = Field(32, ge=2, multiple_of=2, description="length of the vector of a candidate")
    history_items: int = Field(
        16, ge=0, le=100, description="latest items of the user that candidates attend to; 0: other candidates only"
    )
    epochs: int = Field(
        20, ge=1, description="largest number of passes over the examples; early stopping may use fewer"
    )
    early_stopping_epochs: int = Field(
        3, ge=1, description="epochs without better validation NDCG@10 after which training stops"
    )
    batch_size: int = Field(32, ge=1, description="requests per training step of a worker")
    learning_rate: float = Field(0.002, gt=0, description="step size of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="decay of the weights, as a multiple of the learning rate")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of the inner values that are set to 0 in training")


class RankingConfig(Section):
    enabled: bool = Field(True, description="false: candidates keep the fused order of the sources")
    model: Literal["xgboost", "transformer", "blend"] = Field(
        "xgboost",
        description="xgboost: trees, which score a candidate by its own features; transformer: attention over the "
        "candidates of a request and the user's latest items; blend: weighted sum of both, weight chosen on validation",
    )
    ranked: int = Field(50, ge=1, le=1_000, description="candidates passed to re-ranking")
    trees: int = Field(200, ge=1, description="largest number of trees; early stopping may use fewer")
    depth: int = Field(5, ge=1, description="depth of a tree")
    learning_rate: float = Field(0.08, gt=0, description="shrinkage of each tree")
    min_child_weight: float = Field(
        20.0, ge=0, description="least sum of Hessians in a leaf; larger values regularize more"
    )
    first_look_trees: int = Field(
        20,
        ge=0,
        description="first trees, which preselect first_look_keeps candidates for the whole ranker; 0: none; "
        "with model = transformer, the fused score preselects in their place",
    )
    first_look_keeps: int = Field(
        200, ge=1, description="candidates per request that the whole ranker scores after the preselection"
    )
    negatives: int = Field(
        200, ge=1, description="candidates without interaction that are kept per request in training"
    )
    early_stopping_rounds: int = Field(
        20, ge=1, description="trees without better validation NDCG@10 after which training stops"
    )
    without: tuple[str, ...] = Field(
        (), description="features that the ranker does not use: names, or groups (source, user, item, cross, context)"
    )
    impressions: Literal["off", "negatives", "slates"] = Field(
        "negatives",
        description="how shown items teach the ranker; off: not at all; negatives: items shown in the session of a "
        "request and not acted on are negatives; slates: in addition, each slate is a request of its own, with "
        "split.kind = by_time",
    )
    outcome_hours: float = Field(
        24.0, gt=0, description="with impressions = slates: hours after a slate in which interactions are its outcome"
    )
    propensity_cap: float = Field(
        10.0,
        ge=1,
        description="largest weight of a shown item without interaction, by its inverse propensity and position",
    )
    workers: int = Field(1, ge=1, description="Ray Train workers; each reads a shard of whole groups")
    seed: int = Field(0, description="random seed of the negatives and of the trees")
    transformer: TransformerConfig = TransformerConfig()

    @property
    def history_items(self) -> int:
        """Latest items of the user that the ranker reads."""
        return 0 if self.model == "xgboost" else self.transformer.history_items
