"""Routes of onboarding."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from handsell.serving.graph.service import Service
from handsell.serving.http.onboarding import question_schemas as s
from handsell.serving.http.onboarding.question_queries import build_body
from handsell.serving.http.routing import BODY, StrictRoute, answer, problems


def build_onboarding_routes(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", route_class=StrictRoute)

    @routes.get("/onboarding", response_model=s.OnboardingAnswer, responses=problems(422))
    async def onboarding(query: Annotated[s.OnboardingParameters, Query()]) -> Response:
        """List the items whose answers teach most about a new user; the form for a browser or curl."""
        return answer(await service.onboarding(build_body(query), query.liked, query.disliked))

    @routes.post("/onboarding", response_model=s.OnboardingAnswer, responses=problems(*BODY))
    async def post_onboarding(body: s.OnboardingBody) -> Response:
        """List the items whose answers teach most about a new user."""
        return answer(await service.onboarding(body))

    return routes
