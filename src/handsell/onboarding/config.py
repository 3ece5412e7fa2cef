"""Settings of onboarding: `[onboarding]`."""

from __future__ import annotations

from pydantic import Field

from handsell.core.section import Section


class OnboardingConfig(Section):
    """Items whose answers teach most about a new user's taste: GET /v1/onboarding."""

    enabled: bool = Field(True, description="whether training chooses the items to ask about")
    clusters: int = Field(40, ge=2, le=1_000, description="groups of users with similar taste that answers tell apart")
    items: int = Field(1_000, ge=10, le=100_000, description="most liked items among which the questions are chosen")
