"""Guess from the names of a table's columns what it holds: who, what, when."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from handsell.core.errors import DataError
from handsell.migration.tally import Kind

USUAL: Mapping[str, tuple[str, ...]] = {  # canonical column → usual names, without signs and case, the most usual first
    "user_id": ("userid", "user", "customerid", "customer", "visitorid", "clientid", "memberid", "uid", "accountid",
                "sessionid", "session"),
    "item_id": ("itemid", "item", "productid", "product", "sku", "articleid", "article", "movieid", "trackid", "songid",
                "bookid", "videoid", "contentid", "contentname", "asin", "isbn", "iid"),
    "time": ("time", "timestamp", "createdat", "datetime", "date", "eventtime", "ts", "at", "unixtime", "day"),
    "type": ("type", "eventtype", "event", "action", "behavior", "behaviortype", "feedbacktype", "eventname"),
    "value": ("value", "rating", "score", "quantity", "stars", "overall"),
    "event_id": ("eventid", "orderid", "transactionid"),
    "position": ("position", "rank", "slot"),
    "recommendation_id": ("recommendationid", "queryid", "impressionid", "requestid"),
    "surface": ("surface",),
    "title": ("title", "name", "itemname", "productname"),
    "creators": ("creators", "creator", "artist", "artists", "author", "authors", "brand"),
    "tags": ("tags", "tag", "genres", "genre", "categories", "category"),
    "text": ("text", "description", "summary"),
    "published_at": ("publishedat", "releasedate", "published"),
    "expires_at": ("expiresat",),
    "available": ("available", "instock"),
}  # fmt: skip
TIME = re.compile(r"(_at|At|_AT|_on|[Dd]ate|DATE|[Tt]ime|TIME|[Tt]imestamp|_ts)$")  # such as bought_at, orderDate
COLUMNS: Mapping[Kind, tuple[str, ...]] = {
    "events": ("user_id", "item_id", "time", "type", "value", "event_id", "position", "recommendation_id", "surface"),
    "items": ("item_id", "title", "creators", "tags", "text", "published_at", "expires_at", "available"),
    "users": ("user_id",),
}


def map_columns(names: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Return canonical column → column of the table; `given` comes first, and each column is used once."""
    taken = {canonical: column for canonical, column in given.items() if column in names}
    for canonical, usual in USUAL.items():
        if canonical in given:
            continue
        plain = {_simplify(name): name for name in reversed(names) if name not in taken.values()}
        if found := next((plain[name] for name in usual if name in plain), None):
            taken[canonical] = found
    times = [name for name in names if TIME.search(name.strip()) and name not in taken.values()]
    if "time" not in taken and len(times) == 1:
        taken["time"] = times[0]
    return taken


def find_kind(names: Sequence[str], mapped: Mapping[str, str], file_name: str) -> Kind | None:
    """Return what a table holds: events have users and items; a table named users or items need not be told apart."""
    has_user, has_item = "user_id" in mapped, "item_id" in mapped
    if has_user and has_item and "time" in mapped:
        return "events"
    plain = _simplify(file_name)
    if has_item and not (has_user and re.match(r"(user|customer|member)", plain)):
        return None if has_user and not re.match(r"(item|product|article|movie|book)", plain) else "items"
    return "users" if has_user else None


def require_known(given: Mapping[str, str]) -> None:
    """Raise DataError for a canonical column that does not exist."""
    known = sorted({name for columns in COLUMNS.values() for name in columns})
    if unknown := [name for name in given if name not in known]:
        raise DataError(f"--column {unknown[0]}=…: expected one of {', '.join(known)} before =, got {unknown[0]}")


def _simplify(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.strip().casefold())
