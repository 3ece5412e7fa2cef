"""Settings of the promotion gate: `[gate]`."""

from __future__ import annotations

from pydantic import Field

from handsell.core.section import Section


class GateConfig(Section):
    """Conditions under which a new bundle is promoted. Losses are relative to the live bundle."""

    tolerance: float = Field(0.02, ge=0, description="largest loss of NDCG@10, at the lower bound of the 95 % interval")
    max_coverage_loss: float = Field(0.2, ge=0, le=1, description="largest loss of catalog coverage")
    max_creator_coverage_loss: float = Field(0.2, ge=0, le=1, description="largest loss of creator coverage")
    max_diversity_loss: float = Field(0.1, ge=0, le=1, description="largest loss of diversity within a list")
    max_calibration_rise: float = Field(
        0.25, ge=0, description="largest rise of the calibration error: lists' tags against the users' own"
    )
    max_absence_loss: float = Field(
        0.1, ge=0, le=1, description="largest loss of NDCG@10 from 1 minute to 30 days after a user's last event"
    )
    min_requests: int = Field(
        50, ge=1, description="with fewer shared requests, the live recipe is retrained for the comparison"
    )
    max_age_loss: float = Field(
        0.3,
        ge=0,
        le=1,
        description="a live bundle that was fitted on newer events than the model under test is expected to be better: "
        "beyond this loss of NDCG@10 against it, the new bundle is refused; up to it, the live recipe is retrained for "
        "the comparison",
    )
