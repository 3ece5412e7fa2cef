"""Who makes a request, and what they may do."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

Scope = Literal["recommend", "events", "catalog", "experiments", "admin"]
SCOPES: tuple[Scope, ...] = ("recommend", "events", "catalog", "experiments", "admin")
"""What a key may do; admin includes all others."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`user_id` is that of a widget's token: the only user for whom the caller may ask."""

    key_id: str | None
    name: str
    scopes: frozenset[str]
    user_id: str | None = None

    @classmethod
    def anonymous(cls) -> Caller:
        """The caller of every request where no keys are required."""
        return _ANONYMOUS

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes


_ANONYMOUS = Caller(None, "anonymous", frozenset(SCOPES))
_key_id: ContextVar[str | None] = ContextVar("key_id", default=None)


def set_key_id(key_id: str | None) -> None:
    """Name the key of the request that this task answers."""
    _key_id.set(key_id)


def get_key_id() -> str | None:
    """Return the key of the request that this task answers, None without one."""
    return _key_id.get()
