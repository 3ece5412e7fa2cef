"""Routes of previews. They are GETs: a preview changes nothing, logs no impression, and counts for no rule."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from handsell.serving.graph.service import Service
from handsell.serving.http import answers as a
from handsell.serving.http.preview import preview_schemas as p
from handsell.serving.http.routing import StrictRoute, answer, problems


def build_preview_routes(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", route_class=StrictRoute)

    @routes.get("/preview", response_model=p.PreviewAnswer, responses=problems(404, 422))
    async def preview(query: Annotated[p.PreviewParameters, Query()]) -> Response:
        """Show a slate with another bundle, arm or setting, or after imagined events; nothing is logged as shown."""
        return answer(await service.previews.preview(query))

    @routes.get("/preview/explain", response_model=a.ExplainAnswer, responses=problems(404, 422))
    async def explain_preview(query: Annotated[p.PreviewExplainParameters, Query()]) -> Response:
        """Explain why an item is or is not in a previewed slate, stage by stage."""
        return answer(await service.previews.explain(query))

    return routes
