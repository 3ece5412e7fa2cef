"""The audit log as people and programs read it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime

from rich import box
from rich.markup import escape
from rich.table import Table

from handsell.access.audit_entry import AuditEntry
from handsell.config import Config
from handsell.core.units import SECOND_US
from handsell.events.store.opening import open_reader

PAGE = 10_000


def read_entries(config: Config, since_s: float | None = None) -> Iterator[AuditEntry]:
    """Yield the entries of the last `since_s` seconds, or all, the oldest first; raises EventStoreError."""
    earliest = 0 if since_s is None else time.time_ns() // 1_000 - round(since_s * SECOND_US)
    with closing(open_reader(config)) as reader:
        after = 0
        while entries := reader.read_audit(after, PAGE):
            yield from (entry for entry in entries if entry.time_us >= earliest)
            after = entries[-1].offset


def to_json(entry: AuditEntry) -> str:
    return json.dumps({"time": format_us(entry.time_us), **asdict(entry)}, ensure_ascii=False)


def build_audit_table(entries: Iterable[AuditEntry]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("time", "who", "key", "action", "object", "status", "detail"):
        table.add_column(column, no_wrap=column in ("time", "key", "status"))
    for entry in entries:
        row = (entry.caller, entry.key_id or "", entry.action, entry.object, entry.status, entry.detail)
        table.add_row(format_us(entry.time_us), *map(escape, row))
    return table


def format_us(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
