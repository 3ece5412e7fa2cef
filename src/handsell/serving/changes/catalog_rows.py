"""Items and users as they are now: the bundle's row with the changes that came over HTTP, and new changes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import pyarrow as pa

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.errors import FeatureError, RequestError
from handsell.data.catalog_fields import FieldRules
from handsell.events.store.interface import CatalogChange, EventReader, EventStoreError
from handsell.features.views import ATTRIBUTES
from handsell.serving.graph.event_sink import EventSink
from handsell.serving.graph.loaded_bundle import LoadedBundle
from handsell.serving.http.catalog_schemas import MAX_ROWS, RejectedRow, Row, RowsAnswer
from handsell.serving.http.metadata import describe_row, format_time
from handsell.serving.http.schemas import InvalidEntry

Fields = dict[str, Any]
T = TypeVar("T")
TIMES = ("published_at", "expires_at")
ITEM_TYPES = ("item_id", "title", "creators", "tags", "text", "published_at", "expires_at", "available")


class StoredChanges:
    """Changes in the event store, read in a thread of its own, because a store that hangs must block nothing else."""

    def __init__(self, reader: EventReader, events: EventSink, deadline_s: float):
        self.events, self._reader, self._deadline_s = events, reader, deadline_s
        self._thread = ThreadPoolExecutor(1, "catalog-changes")

    async def read(self, kind: Literal["item", "user"], ids: Sequence[str]) -> list[CatalogChange]:
        """Read the changes of some rows; raises EventStoreError where the store does not answer in time."""
        return await self._run(lambda: self._reader.read_changes_of(kind, ids))

    async def query(self, read: Callable[[EventReader], T]) -> T:
        """Read anything else that the store holds; raises EventStoreError likewise."""
        return await self._run(lambda: read(self._reader))

    async def append(self, changes: Sequence[CatalogChange]) -> None:
        """Append changes; they are durable on return. Raises EventStoreError."""
        try:
            async with asyncio.timeout(self._deadline_s):
                await self.events.append_changes(changes)
        except TimeoutError:
            raise EventStoreError("the event store did not answer in time; the changes may have been stored") from None

    async def _run(self, read: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.get_running_loop().run_in_executor(self._thread, read)
        except TimeoutError:
            raise EventStoreError("the event store did not answer in time") from None

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._reader.close()


class CatalogRows(ABC):
    """Rows of one kind; every method uses the bundle that it is given, and raises RequestError for an invalid body."""

    kind: Literal["item", "user"]

    def __init__(self, config: Config, changes: StoredChanges):
        self._config, self._changes = config, changes

    @abstractmethod
    async def _read_base(self, bundle: LoadedBundle, row_id: str) -> Fields | None:
        """Read the row that the bundle or the feature store has; None without one."""

    @abstractmethod
    def _rules(self, bundle: LoadedBundle) -> FieldRules: ...

    async def get(self, bundle: LoadedBundle, row_id: str) -> Fields:
        """Return the current fields with the id; raises RequestError (404) for an unknown or deleted row."""
        return self._answer(row_id, await self._require(bundle, row_id))

    async def put(self, bundle: LoadedBundle, row_id: str, given: Fields) -> tuple[Fields, bool]:
        """Replace a row; returns its fields, and whether it was unknown or deleted before."""
        fields = self._convert(bundle, row_id, given)
        before = await self._read(bundle, row_id)
        whole = self._rules(bundle).complete(fields)
        await self._changes.append([self._build_change(bundle, row_id, "put", whole)])
        return self._answer(row_id, _show(self.kind, whole)), before is None

    async def patch(self, bundle: LoadedBundle, row_id: str, given: Fields) -> Fields:
        """Change some fields, as a JSON merge patch does."""
        fields = self._convert(bundle, row_id, given)
        before = await self._require(bundle, row_id)
        fields = {name: _merge(before.get(name), value) for name, value in fields.items()}
        if fields:
            await self._changes.append([self._build_change(bundle, row_id, "patch", fields)])
        return self._answer(row_id, {**before, **_show(self.kind, fields)})

    async def delete(self, bundle: LoadedBundle, row_id: str) -> None:
        await self._require(bundle, row_id)
        await self._changes.append([self._build_change(bundle, row_id, "delete", {})])

    async def put_many(self, bundle: LoadedBundle, rows: Sequence[Row | InvalidEntry]) -> RowsAnswer:
        """Put rows; invalid ones are rejected by their index."""
        if len(rows) > MAX_ROWS:
            raise RequestError(
                f"{self.kind}s: expected at most {MAX_ROWS} in one request, got {len(rows)}: send them in parts",
                field=f"{self.kind}s", status=413, code=f"too_many_{self.kind}s",
            )  # fmt: skip
        changes, rejected = await asyncio.to_thread(self._convert_many, bundle, rows)
        if changes:
            await self._changes.append(changes)
        return RowsAnswer(accepted=len(changes), rejected=rejected)

    def _convert_many(
        self, bundle: LoadedBundle, rows: Sequence[Row | InvalidEntry]
    ) -> tuple[list[CatalogChange], list[RejectedRow]]:
        changes, rejected, rules = [], [], self._rules(bundle)
        for index, row in enumerate(rows):
            if isinstance(row, InvalidEntry):
                rejected.append(
                    RejectedRow(index=index, code=f"invalid_{self.kind}", field=row.field, detail=row.detail)
                )
                continue
            fields, problems = rules.convert(row.given)
            if problems:
                first = problems[0]
                rejected.append(
                    RejectedRow(index=index, code=f"invalid_{self.kind}", field=first.field, detail=first.detail)
                )
                continue
            changes.append(self._build_change(bundle, row.given[rules.key], "put", rules.complete(fields)))
        return changes, rejected

    def _convert(self, bundle: LoadedBundle, row_id: str, given: Fields) -> Fields:
        rules = self._rules(bundle)
        if given.get(rules.key) not in (None, row_id):
            raise RequestError(
                f"{rules.key}: expected that of the URL, {row_id!r:.80}, or none; got {given[rules.key]!r:.80}",
                field=rules.key,
            )
        fields, problems = rules.convert(given)
        if problems:
            first, *others = [(problem.field, problem.detail) for problem in problems]
            raise RequestError(first[1], field=first[0], code=f"invalid_{self.kind}", errors=tuple(others[:19]))
        return fields

    async def _read(self, bundle: LoadedBundle, row_id: str) -> Fields | None:
        changes = await self._changes.read(self.kind, [row_id])
        whole = any(change.action != "patch" for change in changes)  # the base is replaced
        return apply_changes(None if whole else await self._read_base(bundle, row_id), changes)

    async def _require(self, bundle: LoadedBundle, row_id: str) -> Fields:
        fields = await self._read(bundle, row_id)
        if fields is None:
            raise RequestError(
                f"{self.kind} {row_id!r:.80} is unknown or deleted: PUT adds it",
                field=f"{self.kind}_id", status=404, code=f"unknown_{self.kind}",
            )  # fmt: skip
        return fields

    def _build_change(
        self, bundle: LoadedBundle, row_id: str, action: Literal["put", "patch", "delete"], fields: Fields
    ) -> CatalogChange:
        return CatalogChange(self.kind, row_id, action, fields, bundle.clock.now())

    def _answer(self, row_id: str, fields: Fields) -> Fields:
        return {f"{self.kind}_id": row_id, **{name: value for name, value in fields.items() if value is not None}}


class Items(CatalogRows):
    kind = "item"

    def _answer(self, row_id: str, fields: Fields) -> Fields:
        shown = super()._answer(row_id, fields)
        return {**shown, "available": shown.get("available", True)}

    async def _read_base(self, bundle: LoadedBundle, row_id: str) -> Fields | None:
        return read_item(bundle.snapshot.base, row_id)

    def _rules(self, bundle: LoadedBundle) -> FieldRules:
        tables = self._config.data.tables
        separator = tables.items.list_separator if tables and tables.items else None
        schema = bundle.snapshot.base.metadata.schema
        found = {f.name: (f.type, "the items table") for f in schema if f.name not in ITEM_TYPES}
        numbers = dict.fromkeys(self._config.features.item_columns, (pa.float64(), "features.item_columns"))
        return FieldRules.of_items({**found, **numbers}, separator)


class Users(CatalogRows):
    kind = "user"

    async def _read_base(self, bundle: LoadedBundle, row_id: str) -> Fields | None:
        try:
            return await bundle.read_attributes(row_id)
        except (FeatureError, OSError, TimeoutError) as error:
            raise RequestError(
                f"the feature store does not answer: {error}", status=503, code="feature_store_unavailable"
            ) from error

    def _rules(self, bundle: LoadedBundle) -> FieldRules:
        features = self._config.features
        named = {
            name: (ATTRIBUTES[kind], "features.user_attributes") for name, kind in features.user_attributes.items()
        }
        numbers = dict.fromkeys(features.user_columns, (pa.float64(), "features.user_columns"))
        return FieldRules.of_users({**named, **numbers})


def apply_changes(row: Fields | None, changes: Sequence[CatalogChange]) -> Fields | None:
    """Return the fields of a row after changes in order, without nulls; None if it is deleted or unknown."""
    for change in changes:
        if change.action == "delete":
            row = None
        elif change.action == "put":
            row = _show(change.kind, change.fields)
        elif row is not None:
            row = {**row, **_show(change.kind, change.fields)}
    return None if row is None else {name: value for name, value in row.items() if value is not None}


def read_item(snapshot: Snapshot, item_id: str) -> Fields | None:
    """Return the fields of an item in the snapshot; None without a row, which items that only events name lack."""
    number = int(snapshot.items.number([item_id])[0])
    if number == NONE or number >= len(snapshot.metadata):
        return None
    row = describe_row(snapshot.metadata, number)
    available = bool(snapshot.available[number])
    described = any(value not in (None, []) for name, value in row.items() if name not in ("item_id", "available"))
    if not described and not available:
        return None
    return {**row, "available": available}


def _show(kind: Literal["item", "user"], fields: Fields) -> Fields:
    """Return stored fields as they are answered: times of items as text."""
    if kind == "user":
        return fields
    times = {name: format_time(fields[name]) for name in TIMES if isinstance(fields.get(name), int)}
    return {**fields, **times}


def _merge(before: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396) to a value."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(before) if isinstance(before, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged
