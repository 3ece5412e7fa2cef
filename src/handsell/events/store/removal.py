"""Delete rows of the event store: trimmed events leave their keys, deleted slates their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from handsell.events.store.interface import AppendResult
from handsell.events.store.rows import hash_owner
from handsell.events.store.transaction import Transaction

TRIMMED_ROWS = 500  # in one transaction, so that an append in between waits for tens of milliseconds


def trim(tx: Transaction, table: str, through: int) -> AppendResult:
    """Delete the first TRIMMED_ROWS rows of a table through an offset."""
    first = f'SELECT "offset" FROM {table} WHERE "offset" <= ? ORDER BY "offset" LIMIT {TRIMMED_ROWS}'
    last = tx.rows(f'SELECT max("offset") FROM ({first}) AS first_rows', (through,))[0][0]
    if last is None:
        return AppendResult(0, 0, ())
    if table == "events":
        found = tx.rows('SELECT key, "offset", user_id FROM events WHERE "offset" <= ?', (last,))
        tx.insert("trimmed_keys", ("key", "offset", "owner"), [(k, o, hash_owner(user)) for k, o, user in found])
    if table == "slates":
        return AppendResult(remove_slates(tx, '"offset" <= ?', (last,)), 0, ())
    return AppendResult(tx.run(f'DELETE FROM {table} WHERE "offset" <= ?', (last,)), 0, ())


def remove_slates(tx: Transaction, where: str, values: Sequence[Any]) -> int:
    """Delete slates and add them to their gateways' counts, so that they do not count as lost."""
    update = (
        "ON CONFLICT (gateway) DO UPDATE SET count = removed_slates.count + excluded.count, "
        "last = CASE WHEN excluded.last > removed_slates.last THEN excluded.last ELSE removed_slates.last END"
    )
    # "WHERE true AND": SQLite would read ON CONFLICT as a join condition of a SELECT without a WHERE
    tx.run(
        "INSERT INTO removed_slates (gateway, count, last) SELECT gateway, count(*), max(sequence) FROM slates "
        f"WHERE {where} GROUP BY gateway {update}",
        values,
    )
    return tx.run(f"DELETE FROM slates WHERE {where}", values)
