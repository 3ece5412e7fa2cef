"""One request of a person: who they are, what they may do, and how the page asks the service for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment
from starlette.requests import Request

from handsell.access.audit_entry import AuditEntry
from handsell.access.caller import Caller, Scope
from handsell.config import Config
from handsell.console.background_commands import BackgroundCommands
from handsell.console.live.service_watcher import ServiceWatcher
from handsell.console.service_client import ServiceClient
from handsell.console.sessions import Session, SessionStore
from handsell.console.visitors import Visitors
from handsell.core.errors import HandsellError


class ActionRefused(HandsellError):
    """An action that the session may not do; the message says why, and what to do."""


@dataclass(frozen=True)
class ConsoleContext:
    """What all requests share; `append_audit` stores an entry of the audit log and may block."""

    config: Config
    service: ServiceClient
    visitors: Visitors
    sessions: SessionStore
    templates: Environment
    append_audit: Callable[[AuditEntry], None]
    watcher: ServiceWatcher
    commands: BackgroundCommands = field(default_factory=BackgroundCommands)


@dataclass(frozen=True)
class Visit:
    context: ConsoleContext
    session: Session
    caller: Caller
    form: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        return self.context.config

    @property
    def is_signed_in(self) -> bool:
        return self.caller.key_id is not None

    def field(self, name: str, default: str = "") -> str:
        """Return the value of a field of the sent form; the last one if there are several."""
        return (self.form.get(name) or [default])[-1].strip()

    def may(self, scope: Scope) -> bool:
        return self.caller.may(scope)

    def explain_scope(self, scope: Scope) -> str:
        """Return why an action that changes nothing is off for this session; empty if it is on."""
        if self.may(scope):
            return ""
        return f"This needs a key with the scope {scope}; yours has {', '.join(sorted(self.caller.scopes))}."

    def explain_refusal(self, scope: Scope) -> str:
        """Return why an action that changes something is off for this session; empty if it is on."""
        if reason := self.explain_scope(scope):
            return reason
        return "" if self.session.is_editing else "Switch on “Edit” at the top of the page to change this."

    def require_edit(self, scope: Scope) -> None:
        """Raise ActionRefused unless this session may change something now."""
        if reason := self.explain_refusal(scope):
            raise ActionRefused(reason)

    async def ask(self, method: str, path: str, **parts: Any) -> Any:
        """Ask the HTTP API as this person; raises ClientError."""
        return await self.context.service.ask(method, path, self.session.key, **parts)

    @asynccontextmanager
    async def audited(self, action: str, about: str, detail: str = "") -> AsyncIterator[None]:
        """Record the block in the audit log, as `done` or `failed`; requests to the HTTP API are recorded by it."""
        try:
            yield
        except Exception as error:
            await self._record(action, about, "failed", type(error).__name__)
            raise
        await self._record(action, about, "done", detail)

    async def _record(self, action: str, about: str, status: str, detail: str) -> None:
        name = self.caller.name if self.is_signed_in else "console"
        entry = AuditEntry(
            time.time_ns() // 1_000, self.caller.key_id, name, f"console: {action}", about, status, detail
        )
        await asyncio.to_thread(self.context.append_audit, entry)


def get_visit(request: Request) -> Visit:
    """Return the visit of a request, which the gate has set."""
    visit: Visit = request.state.visit
    return visit
