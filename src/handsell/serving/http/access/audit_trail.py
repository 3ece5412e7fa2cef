"""Records who changed what: requests that need scope catalog, experiments or admin.

The entry is durable before the answer is sent. User ids are hashed, also where logs have them in plain text: an erased
person is in no entry. Reads are not recorded; without keys, where nobody is known, erasures alone are.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import orjson
from fastapi import Request
from starlette.types import Scope

from handsell.access.audit_entry import AuditEntry
from handsell.access.caller import Caller
from handsell.config import Config
from handsell.core.logs.id_hashing import IdHash, make_id_hash
from handsell.core.logs.request_trace import get_trace
from handsell.core.paths import Layout
from handsell.serving.http.access.route_scopes import ALL_SCOPES, find_scope
from handsell.serving.telemetry.request_ids import BODY

RECORDED = ("catalog", "experiments", "admin")
LONGEST = 200  # characters of an object

Append = Callable[[AuditEntry], Awaitable[None]]


def make_audit_hash(config: Config) -> IdHash:
    """Return the hash of user ids in the audit log."""
    return make_id_hash("hashed", Layout(config.state).log_key)


class AuditTrail:
    """Appends an entry for each recorded request, whatever its answer."""

    def __init__(self, append: Append, hash_id: IdHash):
        self._append, self._hash = append, hash_id

    async def record(self, scope: Scope, status: int) -> None:
        """Append the entry of a request that changes something, if it is recorded; durable on return."""
        if (entry := self._describe(scope, status)) is not None:
            await self._append(entry)

    def _describe(self, scope: Scope, status: int) -> AuditEntry | None:
        """Return the entry of a request, None for one that is not recorded."""
        path = getattr(scope.get("route"), "path_format", "")
        if path not in ALL_SCOPES:
            return None
        request, caller = Request(scope), scope.get("state", {}).get("caller", Caller.anonymous())
        needed = find_scope(path, request)
        if needed not in RECORDED or (caller.key_id is None and needed != "admin"):
            return None
        action = f"{scope['method']} {path}" + (" (erase)" if needed == "admin" else "")
        trace = f"trace {trace_id}" if (trace_id := get_trace().trace_id) else ""
        about = self._name_object(request)[:LONGEST]
        return AuditEntry(time.time_ns() // 1_000, caller.key_id, caller.name, action, about, str(status), trace)

    def _name_object(self, request: Request) -> str:
        named = {**request.query_params, **request.path_params}
        if user_id := named.get("user_id"):
            return f"user {self._hash(user_id)}"
        if item_id := named.get("item_id"):
            return f"item {item_id}"
        try:
            body = orjson.loads(request.scope.get(BODY) or b"null")
        except orjson.JSONDecodeError:
            return ""
        if isinstance(body, dict):
            if user_id := body.get("UserId"):
                return f"user {self._hash(str(user_id))}"
            if item_id := body.get("ItemId"):
                return f"item {item_id}"
            body = next((rows for rows in body.values() if isinstance(rows, list)), ())
        return f"{len(body) if isinstance(body, list | tuple) else 0} {path_noun(request)}"


def path_noun(request: Request) -> str:
    """Return what a bulk route changes: items, users."""
    return request.url.path.rsplit("/", 1)[-1]
