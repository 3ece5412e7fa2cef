"""What all routes of the HTTP API share: ids in paths, strict JSON bodies, documented problems."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, ClassVar

import orjson
from fastapi import Path, Query
from fastapi.requests import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.convertors import PathConvertor, register_url_convertor

from handsell.core.errors import RequestError
from handsell.serving.http import answers as a
from handsell.serving.http import schemas as s
from handsell.serving.http.access.route_scopes import require_access, require_scope
from handsell.serving.http.problems import Problem

PROBLEMS: dict[int, dict[str, Any]] = {
    status: {"model": Problem, "description": what}
    for status, what in (
        (400, "Malformed JSON"), (401, "No valid API key"), (403, "The key or the origin may not do this"),
        (404, "Unknown"), (409, "Conflict"), (413, "Body too large"),
        (415, "Not application/json"), (422, "Invalid field"),
        (429, "Too many requests; retry after the given number of seconds"), (500, "Internal error"),
        (503, "Service unavailable; retry after the given number of seconds"),
    )
}  # fmt: skip


class IdConvertor(PathConvertor):
    """Any text in a path, also with slashes, because servers decode %2F before the app routes, and line breaks."""

    regex = r"[\s\S]*"


register_url_convertor("id", IdConvertor())
USER, ITEM = "/users/{user_id:id}", "/items/{item_id:id}"
BODY_TYPES = {
    "POST": ("application/json",),
    "PUT": ("application/json",),
    "PATCH": ("application/json", "application/merge-patch+json"),
}
BODY = (400, 413, 415, 422)  # problems of a request with a body
ACCESS = (401, 403, 429)  # problems of any request
UserId = Annotated[s.Id, Path(description="an unknown user is a cold start, not an error")]
LoggedUser = Annotated[s.Id, Path(description="the id used in requests and events")]
QueriedUser = Annotated[s.Id, Query(description="the id used in requests and events")]
ItemId = Annotated[s.Id, Path()]
QueriedItem = Annotated[s.Id, Query()]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: PROBLEMS[status] for status in (*statuses, *ACCESS, 500, 503)}


class StrictJson(Request):
    """A request with strict JSON: no NaN, valid UTF-8, limited nesting."""

    async def json(self) -> Any:
        return orjson.loads(await self.body())


class StrictRoute(APIRoute):
    body_types: ClassVar[Mapping[str, tuple[str, ...]]] = BODY_TYPES

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, path = super().get_route_handler(), self.path_format
        require_scope(path)

        async def strict(request: Request) -> Response:
            strict_request = StrictJson(request.scope, request.receive)
            await require_access(path, strict_request)
            kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
            # browsers do not send this type to another site without its consent
            expected = self.body_types.get(request.method, ())
            if expected and kind not in expected:
                raise RequestError(
                    f"content-type is expected to be {expected[0]}; got {kind[:80] or 'none'!r}",
                    field="content-type", status=415, code="unsupported_media_type",
                )  # fmt: skip
            return await handle(strict_request)

        return strict


class BodylessRoute(StrictRoute):
    """A route whose path says it all: a PUT without a body."""

    body_types: ClassVar[Mapping[str, tuple[str, ...]]] = {}


def answer(body: a.Answer, status: int = 200) -> Response:
    return Response(body.to_json(), status, media_type="application/json")
