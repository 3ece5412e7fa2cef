"""What all routes of the HTTP API share: ids in paths, strict JSON bodies, documented problems."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, get_origin
from urllib.parse import parse_qsl

import orjson
from fastapi import Path, Query
from fastapi.requests import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.types import Receive, Scope, Send

from handsell.core.errors import RequestError
from handsell.serving.http import answers as a
from handsell.serving.http import schemas as s
from handsell.serving.http.access.route_scopes import ALL_SCOPES, require_access, require_scope
from handsell.serving.http.problems import Problem
from handsell.serving.telemetry.request_ids import BODY as KEPT_BODY

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
JSON_TYPES = (b"application/json", b"application/json; charset=utf-8")  # that need no parsing
BODY = (400, 413, 415, 422)  # problems of a request with a body
ACCESS = (401, 403, 429)  # problems of any request
UserId = Annotated[s.Id, Path(description="an unknown user is a cold start, not an error")]
LoggedUser = Annotated[s.Id, Path(description="the id used in requests and events")]
QueriedUser = Annotated[s.Id, Query(description="the id used in requests and events")]
ItemId = Annotated[s.Id, Path()]
QueriedItem = Annotated[s.Id, Query()]


Read = Callable[[Scope], Any]
"""Returns what FastAPI would validate; raises KeyError or ValueError where that is not there."""


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


class DirectRoute(StrictRoute):
    """A route that reads path, query and body itself, and validates each with the field that FastAPI has made for it.

    A request that is not correct, or whose caller may not call for everybody, is left to FastAPI, which answers what is
    wrong: both accept the same requests, and errors have one place. Query and body must be one model each.
    """

    def __init__(self, path: str, endpoint: Callable[..., Awaitable[Response]], **options: Any):
        super().__init__(path, endpoint, **options)
        self._ask_fastapi, self.app = self.app, self._answer
        wanted = self.dependant
        self._fields: list[tuple[Any, Read]] = [
            *((field, partial(_read_path, field.name)) for field in wanted.path_params),
            *((field, partial(_read_query, _find_lists(field))) for field in wanted.query_params),
            *((field, _read_body) for field in wanted.body_params),
        ]

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        arguments = self._read(scope) if self._may_call(scope) else None
        if arguments is None:
            await self._ask_fastapi(scope, receive, send)
            return
        response = await self.endpoint(**arguments)
        await response(scope, receive, send)

    def _may_call(self, scope: Scope) -> bool:
        """Return whether the caller may call this route for every user."""
        caller = scope.get("state", {}).get("caller")
        return caller is not None and caller.user_id is None and caller.may(ALL_SCOPES[self.path_format])

    def _read(self, scope: Scope) -> dict[str, Any] | None:
        """Return the arguments of the endpoint, None if one of them is not as expected."""
        arguments = {}
        for field, read in self._fields:
            try:
                arguments[field.name], errors = field.validate(read(scope))
            except (KeyError, ValueError):
                return None
            if errors:
                return None
        return arguments


def answer(body: a.Answer, status: int = 200) -> Response:
    return Response(body.to_json(), status, media_type="application/json")


def _find_lists(field: Any) -> Collection[str]:
    """Return the names of a model's parameters that may be given several times."""
    fields = field.field_info.annotation.model_fields.items()
    return {name for name, info in fields if get_origin(info.annotation) is list}


def _read_path(name: str, scope: Scope) -> Any:
    return scope["path_params"][name]


def _read_query(lists: Collection[str], scope: Scope) -> dict[str, Any]:
    """Return the parameters by name: all values of a list, else the last one, as Starlette reads them."""
    found: dict[str, Any] = {}
    if scope["query_string"]:
        for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
            if name in lists:
                found.setdefault(name, []).append(value)
            else:
                found[name] = value
    return found


def _read_body(scope: Scope) -> Any:
    """Return the JSON value of the body that the middleware has read."""
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if kind.lower() not in JSON_TYPES:
        raise ValueError(kind)
    return orjson.loads(scope[KEPT_BODY])
