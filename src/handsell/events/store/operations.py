"""The operations of a writer, in SQL that every engine understands.

Each takes a transaction and the arguments of several calls, and returns one result per call. A call that is refused
(IdentityConflict) writes nothing; the others are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from handsell.events.store.access_rows import add_usage, append_audit, put_key
from handsell.events.store.interface import SLATE_FIELDS, AppendResult, IdentityConflict
from handsell.events.store.people import erase_user, finish_erasure, merge_identity, put_blocks, read_owners
from handsell.events.store.removal import trim
from handsell.events.store.rows import CHANGE_COLUMNS, EVENT_COLUMNS, SLATE_COLUMNS, build_event_row, compute_keys
from handsell.events.store.transaction import Transaction

Result = AppendResult | IdentityConflict
Operation = Callable[[Transaction, list[tuple]], Sequence[Result]]


def append_events(tx: Transaction, calls: list[tuple]) -> list[AppendResult]:
    """Append the events of all calls at once."""
    events: list[dict[str, Any]] = [event for (batch,) in calls for event in batch]
    if not events:
        return [AppendResult(0, 0, ())] * len(calls)
    keys = compute_keys(events)
    sent = keys  # an event of a visitor may have been stored before the visitor was merged
    owners = read_owners(tx, {event["user_id"] for event in events})
    if owners:
        events = [event | {"user_id": owners.get(event["user_id"], event["user_id"])} for event in events]
        keys = compute_keys(events)
    known = find_known_keys(tx, {*keys, *sent} if owners else keys)
    new: list[tuple[dict[str, Any], int]] = []
    place: list[int] = []  # in `new`, -1 for a duplicate
    for event, key, before in zip(events, keys, sent, strict=True):
        if key in known or before in known:
            place.append(-1)
            continue
        known.add(key)
        place.append(len(new))
        new.append((event, key))
    offsets = tx.allocate("events", len(new))
    rows = [build_event_row(event, offset, key) for (event, key), offset in zip(new, offsets, strict=True)]
    tx.insert("events", EVENT_COLUMNS, rows)
    return _split(place, offsets, [len(batch) for (batch,) in calls])


def find_known_keys(tx: Transaction, keys: Sequence[int] | set[int]) -> set[int]:
    """Return which keys belong to an event that is stored, or was before it was trimmed."""
    among, value = tx.among("key", list(keys))
    sql = f"SELECT key FROM events WHERE {among} UNION ALL SELECT key FROM trimmed_keys WHERE {among}"
    return {key for (key,) in tx.rows(sql, (value, value))}


def append_slates(tx: Transaction, calls: list[tuple]) -> list[AppendResult]:
    """Append the slates of all calls at once."""
    slates: list[tuple] = [slate for (batch,) in calls for slate in batch]
    if not slates:
        return [AppendResult(0, 0, ())] * len(calls)
    of_user = SLATE_FIELDS.index("user_id")
    owners = read_owners(tx, {slate[of_user] for slate in slates if slate[of_user] is not None})
    among, value = tx.among("recommendation_id", [slate[0] for slate in slates])
    known = {found for (found,) in tx.rows(f"SELECT recommendation_id FROM slates WHERE {among}", (value,))}
    new: list[tuple] = []
    place: list[int] = []
    for slate in slates:
        if slate[0] in known:
            place.append(-1)
            continue
        known.add(slate[0])
        place.append(len(new))
        owner = owners.get(slate[of_user], slate[of_user])
        new.append((*slate[:of_user], owner, *slate[of_user + 1 :]))
    offsets = tx.allocate("slates", len(new))
    tx.insert("slates", SLATE_COLUMNS, [(offset, *slate) for offset, slate in zip(offsets, new, strict=True)])
    return _split(place, offsets, [len(batch) for (batch,) in calls])


def append_changes(tx: Transaction, calls: list[tuple]) -> list[AppendResult]:
    rows = [row for (batch,) in calls for row in batch]
    offsets = tx.allocate("catalog_changes", len(rows))
    tx.insert("catalog_changes", CHANGE_COLUMNS, [(o, *row) for o, row in zip(offsets, rows, strict=True)])
    return _split(list(range(len(rows))), offsets, [len(batch) for (batch,) in calls])


def save_position(tx: Transaction, name: str, offset: int) -> AppendResult:
    update = 'ON CONFLICT (name) DO UPDATE SET "offset" = excluded."offset"'
    tx.run(f'INSERT INTO positions (name, "offset") VALUES (?, ?) {update}', (name, offset))
    return AppendResult(1, 0, ())


def _split(place: Sequence[int], offsets: range, sizes: Sequence[int]) -> list[AppendResult]:
    """Return the result of each call; `place` of a row is its place among the new rows, -1 for a duplicate."""
    own, results = iter(place), []
    for size in sizes:
        stored = tuple(-1 if at < 0 else offsets[at] for at in islice(own, size))
        duplicates = stored.count(-1)
        results.append(AppendResult(size - duplicates, duplicates, stored))
    return results


def _one_by_one(operation: Callable[..., AppendResult]) -> Operation:
    def run(tx: Transaction, calls: list[tuple]) -> list[Result]:
        results: list[Result] = []
        for arguments in calls:
            try:
                results.append(operation(tx, *arguments))
            except IdentityConflict as refusal:
                results.append(refusal)
        return results

    return run


OPERATIONS: dict[str, Operation] = {
    "events": append_events,
    "slates": append_slates,
    "catalog_changes": append_changes,
    "blocks": _one_by_one(put_blocks),
    "merge": _one_by_one(merge_identity),
    "erase": _one_by_one(erase_user),
    "finish": _one_by_one(finish_erasure),
    "position": _one_by_one(save_position),
    "trim": _one_by_one(trim),
    "api_keys": _one_by_one(put_key),
    "key_usage": _one_by_one(add_usage),
    "audit": _one_by_one(append_audit),
}
