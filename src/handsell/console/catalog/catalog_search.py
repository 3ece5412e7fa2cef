"""Search of the page Catalog: words, a filter, availability and order, a page of results at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from handsell.catalog.snapshot import ALWAYS, NEVER, Snapshot
from handsell.console.catalog.shown_catalog import CatalogView
from handsell.core.errors import FilterError
from handsell.core.units import DAY_US
from handsell.eligibility.filters import find_user_attributes, get_filters

PER_PAGE = 25
MOST_MATCHES = 5_000  # of words; beyond, the best are shown
STATES = {"": "all items", "on": "available", "off": "not available"}
ORDERS = {"": "best match, or newest", "new": "newest first", "old": "oldest first"}


@dataclass(frozen=True, slots=True)
class CatalogQuery:
    """What the page's address asks for; an unknown value is the first of its choices."""

    q: str = ""
    where: str = ""  # filter expression
    state: str = ""
    order: str = ""
    page: int = 1

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> CatalogQuery:
        page = given.get("page", "1")
        return cls(
            given.get("q", "").strip()[:500],
            given.get("where", "").strip(),
            given.get("state", "") if given.get("state") in STATES else "",
            given.get("order", "") if given.get("order") in ORDERS else "",
            int(page) if page.isdecimal() and 0 < len(page) < 8 and int(page) else 1,
        )

    def list_parameters(self, **changes: Any) -> dict[str, str]:
        """Return the parameters of an address that asks for this with changes, without those that are not set."""
        changed = replace(self, **changes)
        given = {field.name: getattr(changed, field.name) for field in fields(changed)}
        return {name: str(value) for name, value in given.items() if value not in ("", 1)}


@dataclass(frozen=True, slots=True)
class FoundItem:
    item_id: str
    title: str  # the id of an item without one
    creators: tuple[str, ...]
    tags: tuple[str, ...]
    published: str  # day, empty where it is unknown
    state: str
    is_available: bool


@dataclass(frozen=True, slots=True)
class FoundItems:
    items: tuple[FoundItem, ...]
    total: int
    is_cut: bool  # more items have the words than were looked at
    pages: int
    problem: str = ""  # why the filter cannot be used


def search_catalog(view: CatalogView, search: Callable[[str, int], Sequence[int]], query: CatalogQuery) -> FoundItems:
    """Return a page of the items that match; `search` finds the numbers of those with some words, the best first."""
    try:
        wanted = find_wanted(view, query)
    except FilterError as error:
        return FoundItems((), 0, False, 0, str(error))
    numbers = np.array(search(query.q, MOST_MATCHES) if query.q else np.flatnonzero(wanted), np.int64)
    is_cut = bool(query.q) and len(numbers) == MOST_MATCHES
    numbers = numbers[wanted[numbers]]
    order = query.order or ("" if query.q else "new")
    if order:
        published = view.snapshot.published[numbers]
        unknown = published == ALWAYS  # last in both orders
        numbers = numbers[np.lexsort((-published if order == "new" else published, unknown))]
    pages = -(-len(numbers) // PER_PAGE)
    start = (min(query.page, max(pages, 1)) - 1) * PER_PAGE
    return FoundItems(
        list_items(view.snapshot, numbers[start : start + PER_PAGE], view.now), len(numbers), is_cut, pages
    )


def find_wanted(view: CatalogView, query: CatalogQuery) -> np.ndarray:
    """Return (I,) bool, the items in the wanted state that pass the filter; raises FilterError."""
    snapshot, now = view.snapshot, view.now
    every = np.arange(len(snapshot))
    wanted = ~snapshot.is_deleted(every)
    if query.state:
        available = snapshot.available & (snapshot.published <= now) & (now < snapshot.expires)
        wanted &= available if query.state == "on" else ~available
    if query.where:
        if names := find_user_attributes(query.where):
            raise FilterError(
                f"expected attributes of items, got user.{names[0]}: the catalog is not searched for a user"
            )
        wanted &= get_filters(snapshot).mask(query.where)
    return wanted


def list_items(snapshot: Snapshot, numbers: np.ndarray, now: int) -> tuple[FoundItem, ...]:
    """Return what a list shows of items (n,)."""
    ids = snapshot.items.ids(numbers) if len(numbers) else []
    rows = snapshot.read_metadata(numbers).to_pylist()
    found = []
    for number, item_id, row in zip(numbers.tolist(), ids, rows, strict=True):
        published, (state, is_available) = snapshot.published[number], describe_state(snapshot, number, now)
        day = "" if published == ALWAYS else str(np.datetime64(int(published) // DAY_US, "D"))
        found.append(
            FoundItem(
                item_id, row.get("title") or item_id, tuple(row.get("creators") or ()), tuple(row.get("tags") or ()),
                day, state, is_available,
            )
        )  # fmt: skip
    return tuple(found)


def describe_state(snapshot: Snapshot, number: int, now: int) -> tuple[str, bool]:
    """Return in words whether an item can be recommended now, and as a truth value."""
    published, expires = int(snapshot.published[number]), int(snapshot.expires[number])
    if snapshot.is_deleted(np.array([number]))[0]:
        return "deleted", False
    if not snapshot.available[number]:
        return "switched off", False
    if published > now:
        return "not published yet", False
    if expires != NEVER and expires <= now:
        return "expired", False
    return "available", True
