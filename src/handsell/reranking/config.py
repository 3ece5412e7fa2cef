"""Settings of the re-ranker: `[reranking]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from handsell.core.section import Section


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

    def scaled(self) -> RerankingConfig:
        """Return the settings with `strength` multiplied into the four that it scales, and set to 1 (`auto`: 1)."""
        factor = 1.0 if self.strength == "auto" else self.strength
        scaled = ("diversity", "calibration", "novelty", "serendipity")
        return self.model_copy(update={"strength": 1.0, **{name: getattr(self, name) * factor for name in scaled}})
