"""Parameters, body and answer of onboarding."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from handsell.serving.http.answers import Answer, Item, ReleaseStamp
from handsell.serving.http.schemas import (
    Body,
    DeadlineMs,
    Filter,
    Id,
    Include,
    Parameters,
    RequestExclusions,
    ShortId,
    VisitorSession,
)

MOST_ANSWERS = 200  # of one request
REPEAT = "repeat the parameter for several"
Questions = Annotated[
    int, Field(ge=1, le=30, description="questions wanted; fewer if no more items may be asked about")
]


class OnboardingBody(Body):
    user_id: Id | None = Field(
        default=None, description="stored events of this user count as answers; an unknown user has none"
    )
    anonymous_id: Id | None = Field(default=None, description="a visitor without an account; ignored beside a user_id")
    session: VisitorSession | None = Field(default=None, description="answers that need not be in the event log")
    n: Questions = 5
    surface: ShortId = Field(
        default="home", description="a surface of the configuration, whose rules of eligibility hold"
    )
    filter: Filter | None = None
    exclude: RequestExclusions | None = Field(
        default=None, description="items asked about without an answer, and others"
    )
    include: list[Include] = Field(default_factory=list, max_length=4)
    deadline_ms: DeadlineMs | None = None


class OnboardingParameters(Parameters):
    user_id: Id | None = Field(
        default=None, description="stored events of this user count as answers; an unknown user has none"
    )
    anonymous_id: Id | None = Field(default=None, description="a visitor without an account; ignored beside a user_id")
    n: Questions = 5
    liked: list[Id] = Field(default_factory=list, max_length=MOST_ANSWERS, description=f"items answered yes; {REPEAT}")
    disliked: list[Id] = Field(
        default_factory=list, max_length=MOST_ANSWERS, description=f"items answered no; {REPEAT}"
    )
    exclude: list[Id] = Field(
        default_factory=list, max_length=MOST_ANSWERS, description=f"items asked about without an answer; {REPEAT}"
    )
    surface: ShortId = "home"
    filter: Filter | None = None
    include: list[Include] = Field(default_factory=list, max_length=4)
    deadline_ms: DeadlineMs | None = None


class QuestionItem(Item):
    score: float = Field(
        description="0 to 1: bits that the answer is expected to tell about the user's taste, given the answers so far "
        "and the questions above; 0 for items beyond the model of answers, by popularity"
    )


class OnboardingAnswer(Answer):
    items: list[QuestionItem] = Field(description="to ask about, in this order")
    answers: int = Field(description="answers that the choice rests on")
    degraded: list[str] = Field(
        description="parts that failed; `onboarding`: the bundle has no model of answers, items are by popularity"
    )
    release: ReleaseStamp
