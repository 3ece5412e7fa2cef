"""Items, users and feedback of Gorse, and the columns in which they are stored here.

| Gorse | column |
|---|---|
| item: Comment | `title` |
| Categories | `categories`, and among the `tags` |
| Labels | `labels`, JSON text as it came; texts among the `tags`; numbers, flags and texts in `label_NAME`, too |
| Timestamp | `published_at` |
| IsHidden | `available`, the opposite |
| user: Labels, Comment, Subscribe | `labels` and `label_NAME`, `comment`, `subscribe` |
| feedback: FeedbackType, UserId, ItemId, Timestamp, Value | an event's `type`, `user_id`, `item_id`, `time`, `value` |

A value of 0, the default of Gorse's clients, is no value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from handsell.migration.values import is_no_time, read_number, to_json

ITEM_FIELDS = ("ItemId", "IsHidden", "Categories", "Timestamp", "Labels", "Comment")
USER_FIELDS = ("UserId", "Labels", "Subscribe", "Comment")
FEEDBACK_FIELDS = ("FeedbackType", "UserId", "ItemId", "Timestamp", "Value", "Updated", "Comment")
LABEL = "label_"  # so that no label has the name of another column
ZERO_TIME = "0001-01-01T00:00:00Z"
_KNOWN = {name.casefold(): name for name in dict.fromkeys((*ITEM_FIELDS, *USER_FIELDS, *FEEDBACK_FIELDS))} | {
    "description": "Comment"
}  # of items in CSV exports


def rename(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with Gorse's names of fields, however they are written: itemid, item_id, ItemId."""
    return {_KNOWN.get(name.replace("_", "").casefold(), name): value for name, value in record.items()}


def build_item(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of an item that the record names, without the id; `rename` comes first."""
    fields: dict[str, Any] = {}
    if "Comment" in record:
        fields["title"] = record["Comment"] or None
    if "IsHidden" in record:
        fields["available"] = None if record["IsHidden"] is None else not _is_true(record["IsHidden"])
    if "Timestamp" in record:
        fields["published_at"] = None if is_no_time(record["Timestamp"]) else record["Timestamp"]
    if "Categories" in record:
        fields["categories"] = list_texts(record["Categories"])
    if "Labels" in record:
        fields |= build_labels(record["Labels"])
    if "Categories" in record or "Labels" in record:
        fields["tags"] = build_tags(list_texts(record.get("Categories")), record.get("Labels"))
    return fields


def build_user(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a user that the record names, without the id; `rename` comes first."""
    fields: dict[str, Any] = {}
    if "Comment" in record:
        fields["comment"] = record["Comment"] or None
    if "Labels" in record:
        fields |= build_labels(record["Labels"])
    if record.get("Subscribe"):
        fields["subscribe"] = list_texts(record["Subscribe"])
    return fields


def build_event(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a feedback's event, in Gorse's notations; `rename` comes first."""
    value = record.get("Value")
    return {
        "type": record.get("FeedbackType"),
        "user_id": record.get("UserId"),
        "item_id": record.get("ItemId"),
        "time": record.get("Timestamp"),
        "value": None if read_number(value) == 0 else value,
    }


def build_labels(labels: Any) -> dict[str, Any]:
    """Return labels as JSON text, and single values in columns of their own; raises ValueError if nested too deeply."""
    if labels is None:
        return {"labels": None}
    fields: dict[str, Any] = {"labels": to_json(labels)}
    if isinstance(labels, Mapping):
        for name, value in labels.items():
            if isinstance(value, (bool, int, float, str)):
                fields[LABEL + str(name)] = value
    return fields


def build_tags(categories: list[str], labels: Any) -> list[str]:
    """Return the texts of categories and labels: a list's entries, and NAME:TEXT of an object."""
    return list(dict.fromkeys((*categories, *_list_label_texts(labels, ""))))


def _list_label_texts(labels: Any, prefix: str) -> Iterator[str]:
    if isinstance(labels, str):
        yield prefix + labels
    elif isinstance(labels, list):
        yield from (prefix + entry for entry in labels if isinstance(entry, str))
    elif isinstance(labels, Mapping) and not prefix:
        for name, value in labels.items():
            yield from _list_label_texts(value, f"{name}:")


def list_texts(value: Any) -> list[str]:
    """Return a list of texts; text with | is a list in CSV exports."""
    if isinstance(value, str):
        return [part for part in value.split("|") if part]
    if not isinstance(value, Iterable) or isinstance(value, (Mapping, bytes)):
        return []
    return [entry if isinstance(entry, str) else to_json(entry) for entry in value if entry is not None]


def describe_item(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item as Gorse shows it, from its columns here."""
    shown = read_labels(row)
    categories = row.get("categories")
    return {
        "ItemId": row["item_id"],
        "IsHidden": row.get("available") is False,
        "Categories": list_texts(categories if categories is not None or "labels" in row else row.get("tags")),
        "Timestamp": row.get("published_at") or ZERO_TIME,
        "Labels": shown,
        "Comment": row.get("title") or "",
    }


def describe_user(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user as Gorse shows it, from the columns here."""
    known = {"user_id", "labels", "comment", "subscribe"}
    labels = read_labels(row)
    if "labels" not in row:  # a user whose attributes did not come from Gorse
        labels = {name: value for name, value in row.items() if name not in known} or None
    shown = {"UserId": row["user_id"], "Labels": labels, "Comment": row.get("comment") or ""}
    return {**shown, "Subscribe": list_texts(row["subscribe"])} if row.get("subscribe") else shown


def read_labels(row: Mapping[str, Any]) -> Any:
    """Return the labels of a row as they came; None without."""
    text = row.get("labels")
    if not isinstance(text, str):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _is_true(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).strip().casefold() in ("1", "true", "t", "yes", "y", "\x01")
