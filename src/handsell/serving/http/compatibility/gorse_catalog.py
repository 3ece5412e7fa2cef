"""Items and users of Gorse's API: rows of the catalog, changed as over the API's own routes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc

from handsell.catalog.snapshot import Snapshot
from handsell.core.errors import RequestError
from handsell.events.store.interface import CatalogChange, EventReader
from handsell.migration.gorse.fields import (
    LABEL,
    build_item,
    build_labels,
    build_tags,
    build_user,
    describe_item,
    describe_user,
    list_texts,
    read_labels,
)
from handsell.serving.changes.catalog_rows import CatalogRows, apply_changes, read_item
from handsell.serving.graph.service import Service
from handsell.serving.http.catalog_schemas import ListedItem, ListedUser
from handsell.serving.http.compatibility.gorse_feedback import read_cursor
from handsell.serving.http.compatibility.gorse_schemas import (
    GorseItem,
    GorseItemBody,
    GorseItemPage,
    GorseItemPageParameters,
    GorseItemPatch,
    GorsePageParameters,
    GorseUser,
    GorseUserBody,
    GorseUserPage,
    GorseUserPatch,
)

SCANNED, SCANS = 5_000, 10  # rows of one read, and reads for one page, which may be short


class GorseCatalogCalls:
    """Reads and changes items and users of a service."""

    def __init__(self, service: Service):
        self._service = service

    # -- items ----------------------------------------------------------------------------------------------

    async def put_items(self, given: Sequence[GorseItemBody]) -> int:
        """Put items; raises RequestError (400) that names the first one that is no item."""
        rows = [
            ListedItem(**{**_list_others(one), **_build(build_item, one.record), "item_id": one.ItemId})
            for one in given
        ]
        return await self._put(self._service.items, rows)

    async def get_item(self, item_id: str) -> GorseItem:
        return GorseItem(**describe_item(await self._service.items.get(self._service.bundle, item_id)))

    async def patch_item(self, item_id: str, patch: GorseItemPatch) -> None:
        """Change the fields that are not null; raises RequestError (404) for an unknown item."""
        record = {name: value for name, value in patch.record.items() if value is not None}
        row = await self._service.items.get(self._service.bundle, item_id)
        fields = _build(build_item, record) | _list_others(patch)
        if "Labels" in record:
            fields = _drop_labels(row) | fields
        if "tags" in fields:  # made of both
            categories = record.get("Categories", list_texts(row.get("categories")))
            fields["tags"] = build_tags(list_texts(categories), record.get("Labels", read_labels(row)))
        await self._service.items.patch(self._service.bundle, item_id, fields)

    async def change_category(self, item_id: str, category: str, is_added: bool) -> None:
        row = await self._service.items.get(self._service.bundle, item_id)
        before = describe_item(row)["Categories"]
        kept = [name for name in before if name != category]
        after = [*kept, category] if is_added else kept
        await self.patch_item(item_id, GorseItemPatch(Categories=after))

    async def list_items(self, query: GorseItemPageParameters) -> GorseItemPage:
        """List items in the order of their numbers, hidden ones too; `q` finds text in titles."""
        snapshot, start = self._service.bundle.snapshot, read_cursor(query.cursor)
        if query.q:
            numbers = await asyncio.to_thread(find_titles, snapshot, query.q)
            numbers = numbers[numbers >= start]
        else:
            numbers = np.arange(start, min(len(snapshot), start + SCANNED + query.n))
        rows: list[dict[str, Any]] = []
        for place in range(0, len(numbers), query.n):
            part = numbers[place : place + query.n]
            for number, row in zip(part.tolist(), await self._read_items(snapshot, part), strict=True):
                if row is not None:
                    rows.append(row)
                if len(rows) == query.n:
                    return _build_item_page(rows, number + 1 if number + 1 < len(snapshot) else None)
        after = int(numbers[-1]) + 1 if len(numbers) and not query.q else len(snapshot)
        return _build_item_page(rows, after if after < len(snapshot) else None)

    async def _read_items(self, snapshot: Snapshot, numbers: np.ndarray) -> list[dict[str, Any] | None]:
        """Return the current rows of items; None for those that are deleted or only named by events."""
        ids = snapshot.items.ids(numbers)
        changes = _group(await self._service.changes.read("item", ids))
        rows = [apply_changes(read_item(snapshot.base, one), changes[one]) for one in ids]
        return [None if row is None else {**row, "item_id": one} for one, row in zip(ids, rows, strict=True)]

    # -- users ----------------------------------------------------------------------------------------------

    async def put_users(self, given: Sequence[GorseUserBody]) -> int:
        rows = [
            ListedUser(**{**_list_others(one), **_build(build_user, one.record), "user_id": one.UserId})
            for one in given
        ]
        return await self._put(self._service.users, rows)

    async def get_user(self, user_id: str) -> GorseUser:
        return GorseUser(**describe_user(await self._service.users.get(self._service.bundle, user_id)))

    async def patch_user(self, user_id: str, patch: GorseUserPatch) -> None:
        record = {name: value for name, value in patch.record.items() if value is not None}
        fields = _build(build_user, record) | _list_others(patch)
        if "Labels" in record:
            fields = _drop_labels(await self._service.users.get(self._service.bundle, user_id)) | fields
        await self._service.users.patch(self._service.bundle, user_id, fields)

    async def list_users(self, query: GorsePageParameters) -> GorseUserPage:
        """List the users that were put over HTTP, in the order in which they came."""
        after, rows = read_cursor(query.cursor), list[dict[str, Any]]()
        for _ in range(SCANS):
            found = await self._service.changes.query(partial(_read_changes, after))
            ids = list(dict.fromkeys(change.id for change in found if change.kind == "user"))
            changes = _group(await self._service.changes.read("user", ids))
            for change in found:
                after = change.offset
                if (
                    change.kind == "user" and changes[change.id][0].offset == change.offset
                ):  # listed at its first change
                    row = apply_changes(None, changes[change.id])
                    rows += [] if row is None else [{**row, "user_id": change.id}]
                if len(rows) == query.n:
                    return _build_user_page(rows, str(after))
            if len(found) < SCANNED:
                return _build_user_page(rows, "")
        return _build_user_page(rows, str(after))

    async def _put(self, rows: CatalogRows, given: Sequence[ListedItem] | Sequence[ListedUser]) -> int:
        if not given:
            return 0
        done = await rows.put_many(self._service.bundle, [*given])
        if done.rejected:
            first = done.rejected[0]
            stored = f"{done.accepted:,} others are stored" if done.accepted else "nothing was stored"
            raise RequestError(
                f"[{first.index}].{first.detail}; {stored}", field=f"[{first.index}].{first.field}", status=400,
                code=first.code,
            )  # fmt: skip
        return done.accepted


def _build(build: Callable[[Mapping[str, Any]], dict[str, Any]], record: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return build(record)
    except ValueError as error:
        raise RequestError(
            f"Labels: expected less, got {error}", field="Labels", status=400, code="nested_too_deeply"
        ) from None


def find_titles(snapshot: Snapshot, text: str) -> np.ndarray:
    """Return the numbers (n,) of items whose title contains a text, ascending."""
    found = _match(snapshot.base.metadata["title"], text)
    changed = getattr(snapshot, "changed", None)
    if changed is None:
        return found
    later = changed[_match(snapshot.changed_metadata["title"], text)]  # type: ignore[attr-defined]
    return np.union1d(np.setdiff1d(found, changed), later)


def _match(titles: Any, text: str) -> np.ndarray:
    return np.flatnonzero(pc.fill_null(pc.match_substring(titles, text, ignore_case=True), False).to_numpy())


def _build_item_page(rows: Iterable[Mapping[str, Any]], after: int | None) -> GorseItemPage:
    items = [GorseItem(**describe_item(row)) for row in rows]
    return GorseItemPage(Cursor="" if after is None else str(after), Items=items)


def _read_changes(after: int, reader: EventReader) -> list[CatalogChange]:
    return reader.read_changes(after, SCANNED)


def _build_user_page(rows: Iterable[Mapping[str, Any]], cursor: str) -> GorseUserPage:
    return GorseUserPage(Cursor=cursor, Users=[GorseUser(**describe_user(row)) for row in rows])


def _group(changes: Iterable[CatalogChange]) -> dict[str, list[CatalogChange]]:
    grouped: dict[str, list[CatalogChange]] = defaultdict(list)
    for change in changes:
        grouped[change.id].append(change)
    return grouped


def _list_others(given: Any) -> dict[str, Any]:
    """Return the fields that Gorse does not have; they are columns, as over the API's own routes."""
    return {name: value for name, value in (given.model_extra or {}).items() if name not in ("ItemId", "UserId")}


def _drop_labels(row: Mapping[str, Any]) -> dict[str, None]:
    """Return nulls for the columns of a row's labels, which new labels replace."""
    return dict.fromkeys(name for name in (*row, *build_labels(read_labels(row))) if name.startswith(LABEL))
