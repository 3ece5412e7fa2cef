"""What `handsell rules preview --json` has found, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE


@dataclass(frozen=True, slots=True)
class PreviewedItem:
    title: str
    item_id: str
    note: str  # new, up, down, gone, or empty
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PreviewedList:
    who: str
    surface: str
    before: tuple[PreviewedItem, ...]
    after: tuple[PreviewedItem, ...]


@dataclass(frozen=True, slots=True)
class PreviewInWords:
    headline: str
    basis: str
    is_harmful: bool  # the mean score falls by more than a twentieth
    rules: list[list[str]]  # rows: rule, lists it is active in, share before, share after, could not hold
    items: list[list[str]]  # rows: what wins or loses, before, after, change
    creators: list[list[str]]
    lists: tuple[PreviewedList, ...]


def describe_preview(found: Mapping[str, Any], snapshot: Snapshot) -> PreviewInWords:
    """`found` is the command's JSON; titles are those of the snapshot."""
    changed, every = found["changed_slates"], found["requests"]
    score = found["mean_score"]
    loss = score["loss"] / score["before"] if score["before"] else 0.0
    titles = find_titles(snapshot, [row["id"] for side in found["items"].values() for row in side])
    return PreviewInWords(
        f"{changed:,} of {every:,} lists change. {describe_loss(loss)}",
        "the latest recorded requests" if found["recorded"] else "people of the catalog, as no request is recorded yet",
        loss > 0.05,
        [_list_cells(row) for row in found["by_rule"]],
        _list_movements(found["items"], titles),
        _list_movements(found["creators"], {}),
        tuple(_compare(pair) for pair in found["slates"]),
    )  # fmt: skip


def _list_cells(row: Mapping[str, Any]) -> list[str]:
    shares = (f"{row['before']:.1%}", f"{row['after']:.1%}")
    return [row["rule"], f"{row['requests']:,}", *shares, f"{row['could_not_hold']:,}"]


def describe_loss(loss: float) -> str:
    """Say what happens to the mean score, the estimated chance that somebody reacts to an item."""
    if abs(loss) < 0.0005:
        return "Estimated interest in what is shown: the same."
    return f"Estimated interest in what is shown: {abs(loss):.1%} {'lower' if loss > 0 else 'higher'}."


def find_titles(snapshot: Snapshot, item_ids: Sequence[str]) -> dict[str, str]:
    """Return the titles of items by id, without those that have none."""
    number = snapshot.items.number(item_ids)
    known = number[number != NONE]
    rows = snapshot.read_metadata(known).to_pylist() if len(known) else []
    return {
        item_id: row["title"] for item_id, row in zip(snapshot.items.ids(known), rows, strict=True) if row.get("title")
    }


def _list_movements(sides: Mapping[str, Sequence[Mapping[str, Any]]], titles: Mapping[str, str]) -> list[list[str]]:
    rows = [*sides["winners"], *sides["losers"]]
    return [
        [titles.get(row["id"], row["id"]), f"{row['before']:,}", f"{row['after']:,}", f"{row['change']:+,}"]
        for row in rows
    ]


def _compare(pair: Mapping[str, Any]) -> PreviewedList:
    places = [{row["item_id"]: at for at, row in enumerate(pair[side])} for side in ("before", "after")]
    before = tuple(
        PreviewedItem(row["title"] or row["item_id"], row["item_id"], "" if row["item_id"] in places[1] else "gone")
        for row in pair["before"]
    )
    after = tuple(
        PreviewedItem(
            row["title"] or row["item_id"], row["item_id"], _describe_move(places[0].get(row["item_id"]), at),
            tuple(row["rules"]),
        )
        for at, row in enumerate(pair["after"])
    )  # fmt: skip
    who = f"User {pair['user_id']}" if pair["user_id"] else "Somebody without an id"
    return PreviewedList(who, pair["surface"], before, after)


def _describe_move(before: int | None, after: int) -> str:
    if before is None:
        return "new"
    return "" if before == after else "up" if after < before else "down"
