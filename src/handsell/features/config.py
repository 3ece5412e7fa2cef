"""Settings of features: limits of the user state, and the columns to read."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from handsell.core.section import Section

AttributeKind = Literal["number", "true or false", "text", "list of texts"]


class FeaturesConfig(Section):
    history_length: int = Field(100, ge=1, le=1000, description="T, the most recent interactions kept in order")
    seen_cap: int = Field(2_000, ge=1, description="most recent distinct items kept for the repeat policy")
    affinity_size: int = Field(
        64, ge=1, description="strongest creators and tags kept per user, online and in training"
    )
    affinity_half_life_days: float = Field(28.0, gt=0, description="age at which an event counts half in affinities")
    item_columns: tuple[str, ...] = Field((), description="numeric item columns that the ranker may use")
    user_columns: tuple[str, ...] = Field((), description="numeric user columns that the ranker may use")
    user_attributes: dict[str, AttributeKind] = Field(
        {}, description="user columns that filters may read as `user.<name>`, and what each holds; `user_columns` too"
    )
    online_store: str = Field(
        "sqlite",
        description="sqlite, or a redis connection string host:port (`pip install 'handsell[redis]'`); "
        "$HANDSELL_ONLINE_STORE overrides it",
    )

    @property
    def filter_attributes(self) -> dict[str, AttributeKind]:
        """Return the user attributes that filters may read: name → kind, in the order of `Requests.attributes`."""
        return {**dict.fromkeys(self.user_columns, "number"), **self.user_attributes}

    @model_validator(mode="after")
    def _once(self) -> FeaturesConfig:
        if twice := sorted(set(self.user_columns) & set(self.user_attributes)):
            raise ValueError(
                f"user_attributes: expected columns that user_columns does not name (filters read those already); "
                f"got {', '.join(twice)}"
            )
        if strange := [name for name in self.user_attributes if not re.fullmatch(r"[^\W\d]\w*", name)]:
            raise ValueError(f"user_attributes: expected names of letters, digits and _; got {strange[0]!r}")
        return self
