"""How a user's past becomes features."""

from __future__ import annotations

from pydantic import Field

from handsell.core.config.base import Section


class FeaturesConfig(Section):
    history_length: int = Field(50, ge=1, le=1000, description="T, the most recent interactions kept in order")
    seen_cap: int = Field(2_000, ge=1, description="most recent distinct items kept for the repeat policy")
    affinity_size: int = Field(
        64, ge=1, description="strongest creators and tags kept per user, online and in training"
    )
    affinity_half_life_days: float = Field(28.0, gt=0, description="age at which an event counts half in affinities")
    item_columns: tuple[str, ...] = Field((), description="numeric item columns that the ranker may use")
    user_columns: tuple[str, ...] = Field((), description="numeric user columns that the ranker may use")
    online_store: str = Field(
        "sqlite", description="sqlite, or a redis connection string host:port; $HANDSELL_ONLINE_STORE overrides it"
    )
