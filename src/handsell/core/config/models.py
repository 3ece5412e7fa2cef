"""Ranker, re-ranker and the tuning of sources: each TOML section is one component's whole configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from handsell.core.config.base import Section


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


class ExplorationConfig(Section):
    """Positions that now and then show a candidate drawn at random; its chance is logged with the impression."""

    share: float = Field(0.0, ge=0, le=1, description="chance that one of these positions draws; 0 switches it off")
    positions: tuple[Annotated[int, Field(ge=1, le=30)], ...] = Field(
        (5, 10), description="positions (1 = top) that may draw, each on its own"
    )


class RerankingConfig(Section):
    strength: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "auto",
        description="factor of diversity, calibration, novelty and serendipity. auto: training picks the largest that "
        "costs at most `tolerance` of NDCG@10 on the validation window",
    )
    tolerance: float = Field(0.02, ge=0, le=1, description="strength = auto: relative NDCG@10 that variety may cost")
    selection: Literal["mmr", "dpp"] = Field(
        "dpp",
        description="what diversity minds: mmr: the most alike item above; dpp: all items above (determinantal point "
        "process)",
    )
    diversity: float = Field(
        0.085,
        ge=0,
        le=1,
        description="0 orders by score alone, 1 by difference from what is already chosen; a dpp needs about half of "
        "what mmr needs",
    )
    diversity_by_taste: float = Field(
        0.0,
        ge=0,
        le=1,
        description="how far diversity follows the breadth (entropy) of a user's tags: 0 the same for all, 1 none for "
        "users of one tag and twice as much for those of all",
    )
    calibration: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Steck's λ: 1 - λ goes to relevance and diversity, λ to a mix of tags like the user's own",
    )
    novelty: float = Field(0.08, ge=0, le=1, description="worth of being unpopular, where 1 is a request's whole span")
    serendipity: float = Field(
        0.0, ge=0, le=1, description="worth of being relevant, unpopular and unlike the history at once"
    )
    same_creator_gap: int = Field(1, ge=0, description="items between two of one creator; 0 switches it off")
    category_window: int = Field(
        0, ge=0, le=30, description="positions in a row that hold at most category_most of a tag; 0 switches it off"
    )
    category_most: int = Field(3, ge=1, le=30, description="items of one tag in any category_window positions")
    exploration: ExplorationConfig = ExplorationConfig()
    rules: str | None = Field(
        None,
        min_length=1,
        description="file of business rules, relative to the TOML file; followed while serving: docs/rules.md",
    )

    def at_strength(self, strength: float) -> RerankingConfig:
        """The same dials, those of variety turned down to this factor."""
        soft = ("diversity", "calibration", "novelty", "serendipity")
        turned = {name: getattr(self, name) * strength for name in soft}
        return self.model_copy(update={"strength": strength, **turned})


class TuningConfig(Section):
    """Search for the sources' hyper-parameters on the validation window, by Ray Tune; off until `sources` names one."""

    sources: tuple[str, ...] = Field((), description="enabled sources whose hyper-parameters are searched; none: off")
    budget_s: float = Field(600.0, gt=0, description="seconds for each source; trials under way then are dropped")
    trials: int = Field(100, ge=1, description="most combinations tried for each source")
    max_requests: int = Field(2_000, ge=1, description="validation requests that a trial answers, drawn by the seed")
    concurrent: int = Field(2, ge=1, description="trials of one source at a time, a logical CPU each")
    seed: int = Field(0, description="of the requests and of the combinations")
