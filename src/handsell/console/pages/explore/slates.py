"""Slates as cards, and what differs between two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handsell.console.pages.explore.words import name_failures, name_reason, name_source

MOST_TAGS = 4


@dataclass(frozen=True)
class ItemCard:
    item_id: str
    place: int
    title: str
    creators: str
    tags: tuple[str, ...]
    reason: str
    sources: tuple[str, ...]
    chance: float  # 0 to 1
    move: str = ""  # against the other slate


@dataclass(frozen=True)
class SlateColumn:
    """One of the slates that stand side by side; `error` instead of a slate says why there is none."""

    title: str
    side: str
    cards: tuple[ItemCard, ...] = ()
    settings: Mapping[str, float] | None = None
    notes: tuple[str, ...] = ()
    bundle: str = ""
    error: str = ""
    gone: tuple[str, ...] = ()  # titles that the first slate has and this one has not


def build_cards(
    items: Sequence[Mapping[str, Any]], titles: Mapping[str, str], before: Mapping[str, int] | None = None
) -> tuple[ItemCard, ...]:
    """Return the items of a slate; `before` has the places of the slate that it is compared with."""
    return tuple(_build_card(item, titles, before) for item in items)


def _build_card(item: Mapping[str, Any], titles: Mapping[str, str], before: Mapping[str, int] | None) -> ItemCard:
    metadata, item_id, reason = item.get("metadata") or {}, item["item_id"], item["reason"]
    about = reason.get("item_id")
    return ItemCard(
        item_id=item_id,
        place=item["rank"],
        title=titles.get(item_id, item_id),
        creators=", ".join(list_texts(metadata.get("creators"))),
        tags=list_texts(metadata.get("tags"))[:MOST_TAGS],
        reason=name_reason(reason["code"], titles.get(about, about) if about else None),
        sources=tuple(name_source(name) for name in item["sources"]),
        chance=item["score"],
        move="" if before is None else describe_move(before.get(item_id), item["rank"]),
    )


def list_texts(value: Any) -> tuple[str, ...]:
    """Return the texts of a list, or of a single value."""
    values = value if isinstance(value, list) else [value]
    return tuple(str(one) for one in values if one is not None and one != "")


def describe_move(before: int | None, place: int) -> str:
    if before is None:
        return "new here"
    if before == place:
        return ""
    return f"▲ {before - place} up" if before > place else f"▼ {place - before} down"


def build_column(
    title: str, side: str, answer: Mapping[str, Any], titles: Mapping[str, str],
    first: Sequence[Mapping[str, Any]] | None = None,
) -> SlateColumn:  # fmt: skip
    """Return a slate of `GET /v1/preview`; `first` are the items of the slate that it is compared with."""
    before = None if first is None else {item["item_id"]: item["rank"] for item in first}
    shown = {item["item_id"] for item in answer["items"]}
    notes = [name_failures(answer["degraded"])]
    if answer["relaxed"]:
        notes.append(f"Could not be kept: {', '.join(answer['relaxed'])}.")
    return SlateColumn(
        title, side, build_cards(answer["items"], titles, before), answer["settings"],
        tuple(note for note in notes if note), answer["release"]["bundle"],
        gone=tuple(titles.get(item_id, item_id) for item_id in before or () if item_id not in shown),
    )  # fmt: skip


def summarize_difference(column: SlateColumn) -> str:
    """Say how much a second slate differs from the first."""
    if column.error or not column.cards:
        return ""
    new, moved = (sum(one.move == "new here" for one in column.cards), sum(bool(one.move) for one in column.cards))
    if not moved and not column.gone:
        return "The same items in the same order."
    parts = [f"{new} of {len(column.cards)} items are new here", f"{moved - new} changed their place"]
    return ", ".join(parts) + "."
