"""The user and item ids that a request names: in its path, its query and its body; for hashing them in log lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.types import Scope

from handsell.core.logs.log_lines import ID_FIELDS

BODY = "handsell.body"  # key of the scope under which the body is kept
PREFIXES = ("/v1/users/", "/v1/items/", "/api/user/", "/api/item/", "/api/recommend/", "/api/feedback/")
SUFFIXES = ("/recommendations", "/similar", "/blocks", "/", "/feedback", "/neighbors")
FOREIGN_FIELDS = frozenset(("UserId", "ItemId", "client_id", "object_id", "user-id"))  # of Gorse and UBI


def list_request_ids(scope: Scope) -> Iterator[str]:
    """Yield every id that the request names."""
    path = scope["path"]
    for prefix in PREFIXES:
        if path.startswith(prefix):
            rest = path.removeprefix(prefix)
            yield rest
            yield from (rest.removesuffix(suffix) for suffix in SUFFIXES if rest.endswith(suffix))
            if prefix.startswith("/api/"):
                yield from rest.split("/")
    query = parse_qsl(scope.get("query_string", b"").decode("latin-1"))
    yield from (value for name, value in query if name in ID_FIELDS or name in FOREIGN_FIELDS)
    try:
        yield from _list_ids(orjson.loads(scope.get(BODY) or b"null"))
    except orjson.JSONDecodeError:
        return


def _list_ids(body: Any, is_id: bool = False) -> Iterator[str]:
    if isinstance(body, dict):
        for name, value in body.items():
            yield from _list_ids(value, name in ID_FIELDS or name in FOREIGN_FIELDS)
    elif isinstance(body, list):
        for value in body:
            yield from _list_ids(value, is_id)
    elif is_id and isinstance(body, str):
        yield body
