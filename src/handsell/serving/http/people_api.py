"""Routes that merge a visitor into a user."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from handsell.serving.graph.service import Service
from handsell.serving.http import catalog_schemas as c
from handsell.serving.http.routing import BODY, StrictRoute, answer, problems


def build_identity_routes(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", route_class=StrictRoute)

    @routes.post("/identities/merge", response_model=c.MergeAnswer, responses=problems(409, *BODY))
    async def merge(body: c.MergeBody) -> Response:
        """Give the history of an anonymous visitor to a user; the visitor's id stands for the user from then on."""
        return answer(await service.people.merge(service.bundle, body.visitor_id, body.user_id))

    return routes
