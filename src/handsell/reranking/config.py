"""Settings of re-ranking: `[reranking]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from handsell.core.section import Section


class NewItemsConfig(Section):
    """A fair start for new items: a share of each day's impressions, paced over the day."""

    share: float = Field(
        0.0, ge=0, le=0.5, description="least share of each day's impressions that new items get, in all slates; 0: off"
    )
    days: float = Field(14.0, gt=0, le=365, description="days after its publication for which an item is new")
    impressions: int = Field(100, ge=1, description="impressions after which an item is not new any more")
    candidates: int = Field(
        8, ge=1, le=50, description="new items of each request that ranking passes on besides the best candidates"
    )


class ExplorationConfig(Section):
    """Show candidates by chance at some positions; the exact probability is logged with the impression."""

    share: float = Field(
        0.0, ge=0, le=1, description="probability of a drawn candidate at each of the positions; 0: off"
    )
    positions: tuple[Annotated[int, Field(ge=1, le=30)], ...] = Field(
        (5, 10), description="positions (1 = top) that explore, independently of each other"
    )
    choice: Literal["thompson", "uniform"] = Field(
        "thompson",
        description="thompson: a candidate is drawn with the probability that it is the best one, given how uncertain "
        "its score is; uniform: all candidates alike",
    )
    prior_strength: float = Field(
        20.0,
        gt=0,
        description="choice = thompson: events that the score of an item without events is worth; the less, the more "
        "often such items are drawn",
    )
    new_items: NewItemsConfig = NewItemsConfig()

    @property
    def carried(self) -> int:
        """Number of new items that ranking passes on for exploration besides the best candidates."""
        draws = self.share > 0 and self.choice == "thompson"
        return self.new_items.candidates if draws or self.new_items.share > 0 else 0


class FatigueConfig(Section):
    """Lower the place of items that were shown to the user and ignored."""

    weight: float = Field(
        0.0,
        ge=0,
        le=10,
        description="cost of an item that was shown once without an action since, relative to the span of relevance in "
        "a request; shown three times, it costs twice as much, seven times three times as much; 0: off",
    )
    days: float = Field(7.0, gt=0, le=90, description="days for which an impression counts")


class RerankingConfig(Section):
    """Diversity, calibration, novelty and constraints of the slate."""

    strength: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "auto",
        description="factor of diversity, calibration, novelty and serendipity. auto: training picks the largest that "
        "costs at most `tolerance` of NDCG@10 on the validation window",
    )
    tolerance: float = Field(0.02, ge=0, le=1, description="strength = auto: relative loss of NDCG@10 that is accepted")
    selection: Literal["mmr", "dpp"] = Field(
        "dpp",
        description="diversity by maximal marginal relevance (mmr: compares with the most similar item above) or by a "
        "determinantal point process (dpp: compares with all items above)",
    )
    diversity: float = Field(
        0.085,
        ge=0,
        le=1,
        description="0 orders by score, 1 by difference from the items above; dpp needs about half the value of mmr",
    )
    diversity_by_taste: float = Field(
        0.0,
        ge=0,
        le=1,
        description="dependence of diversity on the entropy of the user's tags: 0 the same for all users, 1 none for "
        "users with one tag and double for users with all tags equally",
    )
    calibration: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Steck's λ: weight of a mix of tags like that of the history; the rest has the weight 1 - λ",
    )
    novelty: float = Field(
        0.08, ge=0, le=1, description="weight of unpopularity; 1 is the span of relevance in a request"
    )
    serendipity: float = Field(
        0.0, ge=0, le=1, description="weight of relevance · unpopularity · dissimilarity to the history"
    )
    floor: float = Field(
        0.5,
        ge=0,
        le=1,
        description="least score of a position, relative to the best one left: the terms above choose only among such "
        "candidates; 0: off, 1: order by score",
    )
    same_creator_gap: int = Field(1, ge=0, description="least number of items between two of one creator; 0: off")
    category_window: int = Field(
        0, ge=0, le=30, description="positions in a row with at most category_most items of one tag; 0: off"
    )
    category_most: int = Field(
        3, ge=1, le=30, description="greatest number of items of one tag in category_window positions"
    )
    exploration: ExplorationConfig = ExplorationConfig()
    fatigue: FatigueConfig = FatigueConfig()
    rules: str | None = Field(
        None,
        min_length=1,
        description="file of business rules, relative to the TOML file, reloaded while serving; see docs/rules.md",
    )

    def scaled(self) -> RerankingConfig:
        """Return the settings with `strength` multiplied into the four that it scales, and set to 1 (`auto`: 1)."""
        factor = 1.0 if self.strength == "auto" else self.strength
        scaled = ("diversity", "calibration", "novelty", "serendipity")
        return self.model_copy(update={"strength": 1.0, **{name: getattr(self, name) * factor for name in scaled}})
