"""Write API keys, their usage and the audit log inside a transaction of the event store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields

from handsell.access.api_key import ApiKey
from handsell.access.audit_entry import AuditEntry
from handsell.events.store.interface import AppendResult
from handsell.events.store.transaction import Transaction

KEY_COLUMNS = tuple(field.name for field in fields(ApiKey))
AUDIT_COLUMNS = tuple(field.name for field in fields(AuditEntry))


def put_key(tx: Transaction, key: ApiKey) -> AppendResult:
    """Store a key, or replace its row; a revoked key stays revoked."""
    offsets = tx.allocate("api_keys", 1)
    row = (*astuple(key)[:-1], offsets[0])
    names = ", ".join(f'"{name}"' for name in KEY_COLUMNS)
    changes = [f'"{name}" = excluded."{name}"' for name in KEY_COLUMNS if name not in ("key_id", "revoked_us")]
    changes.append("revoked_us = coalesce(api_keys.revoked_us, excluded.revoked_us)")
    values = [json.dumps(value) if name == "scopes" else value for name, value in zip(KEY_COLUMNS, row, strict=True)]
    tx.run(
        f"INSERT INTO api_keys ({names}) VALUES ({', '.join('?' * len(row))}) "
        f"ON CONFLICT (key_id) DO UPDATE SET {', '.join(changes)}",
        values,
    )
    return AppendResult(1, 0, tuple(offsets))


def read_key(row: tuple) -> ApiKey:
    """Return the key of a row of KEY_COLUMNS."""
    values = dict(zip(KEY_COLUMNS, row, strict=True))
    return ApiKey(**values | {"scopes": tuple(json.loads(values["scopes"]))})


def add_usage(tx: Transaction, day: int, requests: Mapping[str, int]) -> AppendResult:
    """Add requests of a day, by key; forget earlier days."""
    tx.run("DELETE FROM key_usage WHERE day < ?", (day - 1,))
    update = "ON CONFLICT (key_id, day) DO UPDATE SET requests = key_usage.requests + excluded.requests"
    for key_id, count in requests.items():
        tx.run(f"INSERT INTO key_usage (key_id, day, requests) VALUES (?, ?, ?) {update}", (key_id, day, count))
    return AppendResult(len(requests), 0, ())


def append_audit(tx: Transaction, entries: Sequence[AuditEntry]) -> AppendResult:
    """Append entries to the audit log."""
    offsets = tx.allocate("audit", len(entries))
    rows = [(*astuple(entry)[:-1], offset) for entry, offset in zip(entries, offsets, strict=True)]
    tx.insert("audit", AUDIT_COLUMNS, rows)
    return AppendResult(len(rows), 0, tuple(offsets))
