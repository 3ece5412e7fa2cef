"""Entries of the audit log."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A row of table `audit`: who did what to which object, and how it ended.

    `key_id` is None for a command; `caller` is the name of the key, or of the person at the command line.
    """

    time_us: int
    key_id: str | None
    caller: str
    action: str
    object: str
    status: str
    detail: str = ""
    offset: int = 0
