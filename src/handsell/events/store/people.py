"""Merge visitors into users, and erase people, inside a transaction of the event store."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from handsell.events.store.interface import EVENT_FIELDS, AppendResult, IdentityConflict, MergeResult
from handsell.events.store.removal import remove_slates
from handsell.events.store.rows import EVENT_COLUMNS, build_event_row, hash_owner, hash_person, replace_user
from handsell.events.store.transaction import Transaction


def read_owners(tx: Transaction, user_ids: Collection[str]) -> dict[str, str]:
    """Return the user of each merged visitor among some ids."""
    among, value = tx.among("visitor_id", list(user_ids))
    return dict(tx.rows(f"SELECT visitor_id, user_id FROM identities WHERE {among}", (value,)))  # type: ignore[arg-type]


def put_blocks(tx: Transaction, user_id: str, creators: Sequence[str], tags: Sequence[str]) -> AppendResult:
    """Replace the blocks of a user, or of the user whom a visitor belongs to."""
    owner = read_owners(tx, [user_id]).get(user_id, user_id)
    offsets = tx.allocate("blocks", 1)
    names = ("creators", "tags", '"offset"')
    update = "ON CONFLICT (user_id) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in names)
    values = (owner, json.dumps(list(creators)), json.dumps(list(tags)), offsets[0])
    tx.run(f"INSERT INTO blocks (user_id, {', '.join(names)}) VALUES (?, ?, ?, ?) {update}", values)
    return AppendResult(1, 0, tuple(offsets))


def merge_identity(tx: Transaction, visitor_id: str, user_id: str, time: int) -> MergeResult:
    """Move a visitor's events, slates and blocks to a user; `offsets` are the new ones, -1 for events that both had."""
    unit = _choose_unit(tx, visitor_id, user_id)
    owners = read_owners(tx, [visitor_id, user_id])
    if owners.get(visitor_id) == user_id:
        return MergeResult(0, 0, (), unit)
    if visitor_id == user_id:
        raise IdentityConflict(f"expected a visitor and a user, got {user_id!r} as both: name two ids")
    if visitor_id in owners:
        raise IdentityConflict(f"visitor {visitor_id!r} belongs to user {owners[visitor_id]!r} and stays there")
    if user_id in owners:
        raise IdentityConflict(f"{user_id!r} was merged into {owners[user_id]!r}: merge {visitor_id!r} into that user")
    visitors = [
        visitor_id,
        *(v for (v,) in tx.rows("SELECT visitor_id FROM identities WHERE user_id = ?", (visitor_id,))),
    ]
    tx.run("DELETE FROM identities WHERE user_id = ?", (visitor_id,))
    offsets = tx.allocate("identities", len(visitors))
    rows = [(offset, visitor, user_id, time, unit) for offset, visitor in zip(offsets, visitors, strict=True)]
    tx.insert("identities", ("offset", "visitor_id", "user_id", "time", "unit"), rows)
    tx.run("UPDATE slates SET user_id = ? WHERE user_id = ?", (user_id, visitor_id))
    _merge_blocks(tx, visitor_id, user_id)
    moved = _move_events(tx, visitor_id, user_id)
    return MergeResult(moved.accepted, moved.duplicates, moved.offsets, unit)


def _choose_unit(tx: Transaction, visitor_id: str, user_id: str) -> str:
    """Return the id by which the arms of both are assigned from now on: that of their first slate.

    A user who has visitors already keeps the arms; without slates of either, the visitor's remain.
    """
    if (known := _find_unit(tx, user_id)) is not None:
        return known
    sql = "SELECT user_id, min(time) FROM slates WHERE user_id IN (?, ?) GROUP BY user_id"
    first: dict[str, int] = dict(tx.rows(sql, (visitor_id, user_id)))  # type: ignore[arg-type]
    if user_id in first and (visitor_id not in first or first[user_id] < first[visitor_id]):
        return user_id
    return _find_unit(tx, visitor_id) or visitor_id


def _find_unit(tx: Transaction, user_id: str) -> str | None:
    sql = "SELECT coalesce(unit, visitor_id) FROM identities WHERE user_id = ? ORDER BY time, visitor_id LIMIT 1"
    return next((str(unit) for (unit,) in tx.rows(sql, (user_id,))), None)


def _move_events(tx: Transaction, visitor_id: str, user_id: str) -> AppendResult:
    names = ", ".join(EVENT_FIELDS)
    found = tx.rows(f'SELECT {names}, key FROM events WHERE user_id = ? ORDER BY "offset"', (visitor_id,))
    events = [dict(zip(EVENT_FIELDS, row, strict=False)) | {"user_id": user_id} for row in found]
    keys = replace_user([row[-1] for row in found], events, visitor_id)
    among, value = tx.among("key", keys)
    sql = f"SELECT key FROM events WHERE {among} UNION ALL SELECT key FROM trimmed_keys WHERE {among}"
    known = {key for (key,) in tx.rows(sql, (value, value))}
    tx.run("DELETE FROM events WHERE user_id = ?", (visitor_id,))
    new = [(event, key) for event, key in zip(events, keys, strict=True) if key not in known]
    offsets = tx.allocate("events", len(new))
    tx.insert("events", EVENT_COLUMNS, [build_event_row(e, o, k) for (e, k), o in zip(new, offsets, strict=True)])
    return AppendResult(len(new), len(events) - len(new), tuple(offsets))


def _merge_blocks(tx: Transaction, visitor_id: str, user_id: str) -> None:
    """Give a user the visitor's blocks in addition to the user's own."""
    found = tx.rows("SELECT user_id, creators, tags FROM blocks WHERE user_id IN (?, ?)", (visitor_id, user_id))
    blocks: dict[str, tuple[Any, ...]] = {owner: tuple(map(json.loads, lists)) for owner, *lists in found}
    if visitor_id not in blocks:
        return
    own = blocks.get(user_id, ([], []))
    creators, tags = (list(dict.fromkeys([*a, *b])) for a, b in zip(own, blocks[visitor_id], strict=True))
    put_blocks(tx, user_id, creators, tags)
    tx.run("DELETE FROM blocks WHERE user_id = ?", (visitor_id,))


def erase_user(tx: Transaction, user_id: str, time: int) -> AppendResult:
    """Delete all rows of a user and of the user's visitors; record one erasure for each of the ids."""
    owner = read_owners(tx, [user_id]).get(user_id)
    if owner is not None:
        raise IdentityConflict(f"visitor {user_id!r} belongs to user {owner!r}: erase that user")
    ids = [user_id, *(v for (v,) in tx.rows("SELECT visitor_id FROM identities WHERE user_id = ?", (user_id,)))]
    among, value = tx.among("user_id", ids)
    deleted = tx.run(f"DELETE FROM events WHERE {among}", (value,)) + remove_slates(tx, among, (value,))
    deleted += tx.run(f"DELETE FROM blocks WHERE {among}", (value,))
    deleted += tx.run("DELETE FROM identities WHERE user_id = ?", (user_id,))
    among, value = tx.among("id", ids)
    deleted += tx.run(f"DELETE FROM catalog_changes WHERE kind = 'user' AND {among}", (value,))
    among, value = tx.among("owner", [hash_owner(one) for one in ids])
    deleted += tx.run(f"DELETE FROM trimmed_keys WHERE {among}", (value,))
    for one in ids:
        sql = (
            "INSERT INTO erasures (person, user_id, time) VALUES (?, ?, ?) "
            "ON CONFLICT (person) DO UPDATE SET user_id = excluded.user_id, time = excluded.time"
        )
        tx.run(sql, (hash_person(one), one, time))
    return AppendResult(deleted, 0, ())


def finish_erasure(tx: Transaction, person: str) -> AppendResult:
    return AppendResult(tx.run("UPDATE erasures SET user_id = NULL WHERE person = ?", (person,)), 0, ())
