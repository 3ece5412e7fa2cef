"""Errors of the client.

ClientError
 ├── NoAnswer              the service could not be reached, or did not answer in time
 ├── EventQueueFull        more events wait than `queue_size`; the newest is lost
 ├── EventRejected         the service refuses this event, and will not take it later
 └── ProblemError          the service answered with problem details (RFC 9457)
      ├── InvalidRequest   400, 413, 415, 422: `field` says what is wrong
      ├── AccessDenied     401, 403: the key
      ├── UnknownObject    404: no such item or user
      ├── ObjectConflict   409
      ├── TooManyRequests  429: over the rate or the quota of the key
      └── ServiceFailed    5xx

Every message says what was expected, what was received, and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from handsell.core.errors import HandsellError

REMEDIES = {  # by code of the problem, then by status; for those whose detail does not say what to do
    "key_missing": "pass key=…, or set $HANDSELL_API_KEY",
    "key_invalid": "check the key with `handsell keys list`; `handsell keys rotate` prints another",
    "rate_limited": "send fewer requests, or create a key with a higher --rate",
    "quota_exceeded": "wait for the next UTC day, or create a key with a higher --quota",
    "malformed_json": "send valid JSON: NaN and infinity are none",
    "invalid_request": "correct the field; /openapi.json of the service describes each one",
    "unknown_event_type": "name the type in [events.types] of the service's configuration, or send one of these",
    "internal_error": "report it with the time of the request",
    "404": "check the id and the address of the service",
    "5xx": "send it again later; `/readyz` of the service names the part that fails",
}
LONGEST_TEXT = 200  # characters of an answer that is no problem, such as a proxy's page


class ClientError(HandsellError):
    """Base of all errors of the client. The same call may succeed later if `is_temporary`."""

    is_temporary = False
    retry_after_s: float | None = None


class NoAnswer(ClientError):
    is_temporary = True


class EventQueueFull(ClientError):
    pass


class EventRejected(ClientError):
    """`field` is the wrong field, `code` the stable name of the reason."""

    def __init__(self, code: str, field: str, detail: str):
        super().__init__(_add_remedy(detail, REMEDIES.get(code, "")))
        self.code, self.field, self.detail = code, field, detail


class ProblemError(ClientError):
    """`code` is stable and meant for programs; `errors` are all wrong fields, `field` is the first, or empty."""

    def __init__(self, place: str, problem: Mapping[str, Any], retry_after_s: float | None = None):
        self.status, self.code = int(problem["status"]), str(problem["code"])
        self.detail: str = problem["detail"]
        self.errors: list[dict[str, str]] = problem.get("errors", [])
        self.field = self.errors[0]["field"] if self.errors else ""
        family = "5xx" if self.status >= 500 else str(self.status)
        self.remedy = REMEDIES.get(self.code) or REMEDIES.get(family, "")
        self.retry_after_s = retry_after_s
        super().__init__(_add_remedy(f"{place}: {self.status} {self.code}: {self.detail}", self.remedy))


class InvalidRequest(ProblemError):
    pass


class AccessDenied(ProblemError):
    pass


class UnknownObject(ProblemError):
    pass


class ObjectConflict(ProblemError):
    pass


class TooManyRequests(ProblemError):
    is_temporary = True


class ServiceFailed(ProblemError):
    is_temporary = True


BY_STATUS: dict[int, type[ProblemError]] = {
    **dict.fromkeys((401, 403), AccessDenied), 404: UnknownObject, 409: ObjectConflict, 429: TooManyRequests,
}  # fmt: skip


def make_problem(place: str, status: int, headers: Mapping[str, str], text: str) -> ProblemError:
    """Return the error of an answer; one that is no problem comes from a proxy, or from something else."""
    kind = BY_STATUS.get(status, ServiceFailed if status >= 500 else InvalidRequest)
    return kind(place, read_problem(status, text), read_retry_after(headers.get("retry-after", "")))


def read_problem(status: int, text: str) -> dict[str, Any]:
    """Return the problem details of a body, or such that quote it."""
    try:
        problem = json.loads(text)
    except ValueError:
        problem = None
    if isinstance(problem, dict) and {"status", "code", "detail"} <= problem.keys():
        return problem
    detail = f"expected an answer of handsell, got {' '.join(text.split())[:LONGEST_TEXT]!r}"
    return {"status": status, "code": "no_problem_details", "detail": detail}


def read_retry_after(value: str) -> float | None:
    """Return the seconds of the header Retry-After; None without it, or for a date, which handsell does not send."""
    return float(value) if value.isascii() and value.isdigit() else None


def _add_remedy(text: str, remedy: str) -> str:
    return f"{text}: {remedy}" if remedy else text
