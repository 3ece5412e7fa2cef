"""One call of the HTTP API: what is sent, and how its answer is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from handsell.client.bodies import Event
from handsell.client.errors import ClientError, NoAnswer, make_problem


@dataclass(frozen=True, slots=True)
class ApiCall:
    """Every operation may be sent again: reads change nothing, and writes twice are the same as once."""

    method: str
    path: str
    query: Mapping[str, Any] | None = None
    body: Mapping[str, Any] | None = None

    def list_arguments(self) -> dict[str, Any]:
        """Return the arguments of httpx's `request`; a field that is None is left out of the query."""
        query = {name: value for name, value in (self.query or {}).items() if value is not None}
        sent = {"method": self.method, "url": self.path, "params": query}
        if self.body is None:
            return sent
        return {**sent, "content": encode_body(self.body), "headers": {"Content-Type": "application/json"}}


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Return a body as JSON; raises ClientError for what is none, such as NaN, dates or half a surrogate."""
    try:
        return json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise ClientError(
            f"expected values of JSON (text, finite numbers, lists, dicts), got {body!r:.200}: {error}"
        ) from None


class HttpResponse(Protocol):
    """What is read of a response of httpx."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def content(self) -> bytes: ...
    @property
    def text(self) -> str: ...
    def json(self) -> Any: ...


def read_answer(call: ApiCall, response: HttpResponse, is_repeated: bool) -> Any:
    """Return the body of an answer, None without one; raises ProblemError for any other status than 2xx.

    A repeated DELETE whose first answer was lost finds nothing to delete, and has done what was asked.
    """
    place = f"{call.method} {call.path}"
    if response.status_code == 404 and call.method == "DELETE" and is_repeated:
        return None
    if not 200 <= response.status_code < 300:
        raise make_problem(place, response.status_code, response.headers, response.text)
    try:
        return response.json() if response.content else None
    except ValueError:
        raise NoAnswer(f"{place}: expected JSON, got {response.text[:200]!r}: check the address") from None


def make_events_call(events: list[Event]) -> ApiCall:
    return ApiCall("POST", "/v1/events", body={"events": events})
