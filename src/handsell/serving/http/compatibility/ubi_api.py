"""The route of events in the format of User Behavior Insights.

It has the name to which the collectors of OpenSearch post, `ubi_events` below a base URL, so that they need no change:
`new UbiClient("https://shop.example/v1")`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field

from handsell.core.errors import RequestError
from handsell.serving.graph.service import Service
from handsell.serving.http import answers as a
from handsell.serving.http import schemas as s
from handsell.serving.http.compatibility.ubi_events import UbiConversion, rename_field
from handsell.serving.http.routing import BODY, StrictRoute, answer, problems


class UbiEventsAnswer(a.EventsAnswer):
    not_kept: dict[str, int] = Field(description="fields without a place in an event, with the number of events")


def build_ubi_routes(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", route_class=StrictRoute)

    @routes.post("/ubi_events", status_code=202, response_model=UbiEventsAnswer, responses=problems(*BODY))
    async def ubi_events(body: list[Any] | dict[str, Any]) -> Response:
        """Store events in the format of UBI, a list or one; answered when they are durable."""
        given = body if isinstance(body, list) else [body]
        if not given:
            raise RequestError("body: expected at least one event, got an empty list", field="body")
        conversion = UbiConversion(service.config.serving.ubi_types, service.config.surface_names)
        done = await service.events(s.EventsBody.model_validate({"events": [conversion.convert(e) for e in given]}))
        return answer(
            UbiEventsAnswer(
                accepted=done.accepted, duplicates=done.duplicates,
                rejected=[rename_field(one) for one in done.rejected], not_kept=dict(conversion.not_kept),
            ), 202,
        )  # fmt: skip

    return routes
