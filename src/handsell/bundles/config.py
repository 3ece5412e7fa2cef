"""Settings of the promotion gate: `[gate]`."""

from __future__ import annotations

from pydantic import Field

from handsell.core.section import Section


class GateConfig(Section):
    """When a new bundle may go live."""

    tolerance: float = Field(
        0.02,
        ge=0,
        description="relative NDCG@10 that may be lost at the lower 95 % bound against the live bundle",
    )
    max_coverage_loss: float = Field(0.2, ge=0, le=1, description="relative catalogue coverage that may be lost")
    max_creator_coverage_loss: float = Field(0.2, ge=0, le=1, description="the same for creators in anybody's list")
    max_diversity_loss: float = Field(0.1, ge=0, le=1, description="relative diversity of a list that may be lost")
    max_calibration_rise: float = Field(
        0.25, ge=0, description="by how much, relative, lists may move away from users' own mix of tags"
    )
    max_absence_loss: float = Field(
        0.1,
        ge=0,
        le=1,
        description="relative NDCG@10 that slates may lose when asked 30 days after a user's last event, not at once",
    )
    min_requests: int = Field(50, ge=1, description="fewer shared requests: the live recipe is retrained to compare")
