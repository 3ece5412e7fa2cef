"""Settings of the ranker: `[ranking]`."""

from __future__ import annotations

from pydantic import Field

from handsell.core.section import Section


class RankingConfig(Section):
    enabled: bool = Field(True, description="false serves the fused order of the sources (the blend)")
    ranked: int = Field(50, ge=1, le=1_000, description="candidates passed on to re-ranking")
    trees: int = Field(200, ge=1, description="at most; fewer where early stopping says so")
    depth: int = Field(5, ge=1, description="of a tree")
    learning_rate: float = Field(0.08, gt=0, description="shrinkage of each tree")
    min_child_weight: float = Field(20.0, ge=0, description="least sum of Hessians in a leaf; higher is smoother")
    first_look_trees: int = Field(
        20, ge=0, description="trees by which candidates are cut to first_look_keeps before the whole ranker; 0: no cut"
    )
    first_look_keeps: int = Field(200, ge=1, description="candidates of a request that the whole ranker scores then")
    negatives: int = Field(200, ge=1, description="candidates that the user did not act on, kept per request")
    early_stopping_rounds: int = Field(20, ge=1, description="trees without gain on validation that end training")
    without: tuple[str, ...] = Field(
        (), description="features that the ranker leaves out: names, or groups (source, user, item, cross, context)"
    )
    workers: int = Field(1, ge=1, description="Ray Train workers; each reads its own shard of whole groups")
    seed: int = Field(0, description="of the negatives drawn and of the trees")
