"""What every engine of the event store does; SQLite and PostgreSQL pass the same contract tests.

Events, slates, catalog changes and blocks each have offsets of their own, which rise in the order of commits: a
reader that has read through an offset never misses a row that is committed later. Offsets may have gaps. All times are
int µs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from handsell.access.api_key import ApiKey
from handsell.access.audit_entry import AuditEntry
from handsell.core.errors import HandsellError

EVENT_FIELDS = (
    "event_id", "user_id", "item_id", "type", "time", "value", "surface", "recommendation_id", "position", "propensity",
)  # fmt: skip
"""Columns of an event, those of handsell.data.schemas.EVENTS."""

SLATE_FIELDS = ("recommendation_id", "gateway", "sequence", "time", "user_id", "surface", "bundle", "items")
"""Columns of a served slate; `items` is JSON of equally long lists {item_id, score, propensity, sources} and, with
business rules, their version `rules`. In experiments: `arms` and `stopped` {experiment: arm}, `units` {experiment: id}
of units that are not the user, `interleaved` (an experiment) and `teams` (an arm or null for each item)."""

Slate = tuple[int, str, list[str]]  # time, surface, item ids

Columns = dict[str, list[Any]]
"""Column name → values; `offset` and EVENT_FIELDS."""

TrimmedTable = Literal["events", "slates", "catalog_changes", "trimmed_keys", "audit"]

TAIL = 2_000  # newest events of a user that a request reads


class EventStoreError(HandsellError):
    """The store does not answer or refuses to write; nothing of this call was stored."""


class IdentityConflict(EventStoreError):
    """A merge or an erasure that contradicts an earlier merge; it will not succeed when it is tried again."""


@dataclass(frozen=True, slots=True)
class AppendResult:
    """The result of one append; `offsets[i]` is the offset of row i, -1 for a duplicate."""

    accepted: int
    duplicates: int
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MergeResult(AppendResult):
    """The result of a merge, with the id by which the person's arms are assigned from now on."""

    unit: str


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """A change of an item or user that came over HTTP."""

    kind: Literal["item", "user"]
    id: str
    action: Literal["put", "patch", "delete"]
    fields: dict[str, Any]  # canonical columns and metadata; all of them for put, the changed ones for patch
    time: int
    offset: int = 0  # of the store, when read


@dataclass(frozen=True, slots=True)
class Identity:
    """A visitor's id whose history belongs to a user."""

    visitor_id: str
    user_id: str
    time: int
    offset: int = 0
    unit: str | None = None  # id by which the user's arms are assigned; None (earlier versions): the first visitor


@dataclass(frozen=True, slots=True)
class Blocks:
    """Creators and tags that a user blocks."""

    user_id: str
    creators: tuple[str, ...]
    tags: tuple[str, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Erasure:
    """A person who must be forgotten. `user_id` is None when nothing of the person is left anywhere."""

    person: str  # SHA-256 of the user id, by which the source tables' rows of this person are left out
    user_id: str | None
    time: int


class EventWriter(Protocol):
    """Methods return futures that complete after the commit, and raise EventStoreError if nothing was stored."""

    def append(self, events: Sequence[dict[str, Any]]) -> Future[AppendResult]:
        """Append events, dicts of EVENT_FIELDS (absent = null); events of merged visitors get their user's id.

        A second event with the same key (handsell.data.event_key) is a duplicate and changes nothing. `sent_time`, if
        given, replaces `time` in the key: it is None where the time is that of the arrival.
        """
        ...

    def append_slates(self, slates: Sequence[dict[str, Any]]) -> Future[AppendResult]:
        """Append served slates, dicts of SLATE_FIELDS; a repeated `recommendation_id` is ignored."""
        ...

    def append_changes(self, changes: Sequence[CatalogChange]) -> Future[AppendResult]:
        """Append changes of items and users in order."""
        ...

    def put_blocks(self, user_id: str, creators: Sequence[str], tags: Sequence[str]) -> Future[AppendResult]:
        """Replace the creators and tags that a user blocks; `offsets` has the one of this change."""
        ...

    def merge_identity(self, visitor_id: str, user_id: str, time: int) -> Future[AppendResult]:
        """Give a visitor's events and slates, earlier and later ones, to a user, in one transaction.

        The events get new offsets, so that followers see them as the user's. Merging the same two again changes
        nothing; a visitor who belongs to another user raises IdentityConflict. `accepted` counts the moved events,
        `duplicates` those that the user had as well.
        """
        ...

    def erase_user(self, user_id: str, time: int) -> Future[AppendResult]:
        """Delete everything of a user and of the visitors merged into it, and record the erasure, in one transaction.

        `accepted` counts the deleted rows. Appended events of an erased person are stored again: a new history begins.
        The id of a merged visitor raises IdentityConflict.
        """
        ...

    def finish_erasure(self, person: str) -> Future[AppendResult]:
        """Forget the user id of an erasure after every file has been cleaned."""
        ...

    def save_position(self, name: str, offset: int) -> Future[AppendResult]:
        """Store how far a follower has read."""
        ...

    def trim(self, table: TrimmedTable, through: int) -> Future[AppendResult]:
        """Delete the rows through an offset; `accepted` counts them.

        The keys of trimmed events stay, so that an event that is sent again stays a duplicate, until `trimmed_keys`
        is trimmed through the event's offset, too. Rows go in parts, between which other calls are committed.
        """
        ...

    def put_key(self, key: ApiKey) -> Future[AppendResult]:
        """Store an API key, or replace it; a revoked key stays revoked."""
        ...

    def add_usage(self, day: int, requests: Mapping[str, int]) -> Future[AppendResult]:
        """Add the requests that keys have made in a UTC day (days since 1970)."""
        ...

    def append_audit(self, entries: Sequence[AuditEntry]) -> Future[AppendResult]:
        """Append entries to the audit log."""
        ...

    def close(self) -> None:
        """Commit all pending appends and release the store."""
        ...


class EventReader(Protocol):
    """Reads see what was committed before the call; they raise EventStoreError where the store does not answer."""

    def read_tail(self, user_id: str, after_offset: int = 0, limit: int = TAIL) -> Columns:
        """Read the newest `limit` events of a user after an offset, in order of offsets, with their keys."""
        ...

    def read_tails(self, user_ids: Sequence[str], after_offsets: Sequence[int], limit: int = TAIL) -> Columns:
        """Read the tails of B distinct users in one query; `row` is each event's place in `user_ids`, ascending."""
        ...

    def scan(self, after_offset: int = 0, limit: int = 10_000) -> Columns:
        """Read the next `limit` events after an offset, with their keys."""
        ...

    def last_offset(self) -> int:
        """Return the offset of the newest event, 0 in an empty store."""
        ...

    def read_user_slates(self, user_id: str, since: int, before: int, limit: int = 500) -> list[Slate]:
        """Read a user's newest `limit` slates in [since, before), newest first."""
        ...

    def read_slates_of_users(
        self, user_ids: Sequence[str], since: Sequence[int], before: Sequence[int], limit: int = 500
    ) -> list[list[Slate]]:
        """Read `read_user_slates` of B users in one query."""
        ...

    def count_slates(self, user_ids: Sequence[str], surface: str, since: int, before: int) -> dict[str, int]:
        """Count the slates of a surface in [since, before) by user; users without one are left out."""
        ...

    def read_blocks(self, user_ids: Sequence[str]) -> dict[str, tuple[list[str], list[str]]]:
        """Read blocked creators and tags by user; users without blocks are left out."""
        ...

    def read_changed_blocks(self, after_offset: int = 0, limit: int = 10_000) -> list[Blocks]:
        """Read the blocks of the next `limit` users who changed them last after an offset."""
        ...

    def read_impressions(self, after_offset: int = 0, limit: int = 1_000) -> Columns:
        """Read the items of the next `limit` slates: one row per item with its position (1 = top).

        Tables of an experiment (`arms`, `stopped`, `units`) are JSON text, None without one; `teams` is the item's own.
        """
        ...

    def read_item_impressions(self, item_id: str, after_offset: int = 0, limit: int = 10_000) -> Columns:
        """Read an item's impressions in the next `limit` slates that show it, as `read_impressions` does.

        There is no index of items: every slate after the offset is read.
        """
        ...

    def count_item_events(self, item_id: str, after_offset: int = 0) -> list[tuple[str, int, int, int]]:
        """Count an item's events after an offset: (type, day since 1970, number, of these with a recommendation id).

        Every event after the offset is read.
        """
        ...

    def read_slates(
        self, after_offset: int = 0, limit: int = 1_000
    ) -> list[tuple[int, int, str | None, str, list[str]]]:
        """Read (offset, time, user id, surface, item ids) of the next `limit` served slates."""
        ...

    def find_slate_offset(self, time: int) -> int:
        """Return the offset after which slates of `time` and later are stored.

        Slates are stored in order of time only up to about a second: pass a time that much earlier.
        """
        ...

    def count_lost_impressions(self) -> dict[str, int]:
        """Count the missing sequence numbers of slates by gateway."""
        ...

    def read_changes(self, after_offset: int = 0, limit: int = 10_000) -> list[CatalogChange]:
        """Read the next `limit` catalog changes after an offset."""
        ...

    def read_changes_of(self, kind: Literal["item", "user"], ids: Sequence[str]) -> list[CatalogChange]:
        """Read all stored changes of some items or users, in order."""
        ...

    def last_change_offset(self) -> int:
        """Return the offset of the newest catalog change, 0 without one."""
        ...

    def read_identities(self, after_offset: int = 0, limit: int = 10_000) -> list[Identity]:
        """Read the next `limit` merged visitors after an offset."""
        ...

    def read_erasures(self) -> list[Erasure]:
        """Read all erasures, finished ones too."""
        ...

    def read_keys(self, after_offset: int = 0) -> list[ApiKey]:
        """Read the API keys, also revoked ones, that were changed after an offset."""
        ...

    def read_usage(self, day: int) -> dict[str, int]:
        """Read the requests of a UTC day by key, on all gateways."""
        ...

    def find_audit_offset(self, before_us: int) -> int:
        """Return the highest offset of the audit log's entries before a time, 0 without any."""
        ...

    def read_audit(self, after_offset: int = 0, limit: int = 10_000) -> list[AuditEntry]:
        """Read the next `limit` entries of the audit log after an offset."""
        ...

    def read_position(self, name: str) -> int:
        """Return what `save_position` stored last, 0 if nothing."""
        ...

    def measure(self) -> dict[str, int]:
        """Return the store's size in `bytes`, and the number of rows of each table by name."""
        ...

    def close(self) -> None: ...
