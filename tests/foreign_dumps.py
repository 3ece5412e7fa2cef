"""Small dumps of other recommenders, as they write them: the same shop in every format."""

from __future__ import annotations

import gzip
import json
import sqlite3
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

USERS, ITEMS, EVENTS = 40, 60, 1_500
TYPES = ("star", "read", "like")
HARD_TEXT = 'it\'s "quoted"\n(new, line); \\\\ \\t'
START = datetime(2026, 9, 1, tzinfo=UTC)


def draw_feedback(rng) -> list[dict]:
    """Draw feedback of Gorse; no two have the same time."""
    seconds = np.sort(rng.choice(80 * 86_400, EVENTS, replace=False))
    return [
        {
            "FeedbackType": TYPES[rng.integers(len(TYPES))],
            "UserId": f"u{rng.integers(USERS)}",
            "ItemId": f"i{rng.integers(ITEMS)}",
            "Value": float(n % 5),
            "Timestamp": write_time(START + timedelta(seconds=int(second))),
            "Comment": "",
        }
        for n, second in enumerate(seconds)
    ]


def draw_items() -> list[dict]:
    return [
        {
            "ItemId": f"i{n}",
            "IsHidden": n == 7,
            "Categories": [f"c{n % 3}", "all"],
            "Timestamp": "2024-02-24T00:00:00Z",
            "Labels": {"language": "Go", "stars": n, "topics": ["web", 'it\'s "quoted"\n(new, line)'], "vector": [0.5]},
            "Comment": f"Item {n}",
        }
        for n in range(ITEMS)
    ]


def draw_users() -> list[dict]:
    return [{"UserId": f"u{n}", "Labels": ["new", f"g{n % 2}"], "Comment": f"User {n}"} for n in range(USERS)]


def write_time(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def write_json_lines(path: Path, records: list[dict]) -> Path:
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def build_messages(first: int, with_value: bool):
    """Return the message classes of Gorse's dump; `first` is the number of the first field of items and feedback."""
    file = descriptor_pb2.FileDescriptorProto(name=f"gorse{first}{with_value}.proto", package=f"g{first}{with_value}")
    file.syntax = "proto3"
    stamp = file.message_type.add(name="Timestamp")
    _add_fields(stamp, ["seconds:int64", "nanos:int32"], 1)
    kinds = {
        "User": (["user_id", "labels:bytes", "comment"], 1),
        "Item": (["item_id", "is_hidden:bool", "categories*", "timestamp:time", "labels:bytes", "comment"], first),
        "Feedback": (
            ["feedback_type", "user_id", "item_id", *(["value:double"] if with_value else []), "timestamp:time",
             *(["updated:time"] if with_value else []), "comment"], first,
        ),
    }  # fmt: skip
    for name, (fields, start) in kinds.items():
        _add_fields(file.message_type.add(name=name), fields, start)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("Timestamp", *kinds)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{n}")) for n in names}


def _add_fields(message, fields: list[str], start: int) -> None:
    of = descriptor_pb2.FieldDescriptorProto
    for number, field in enumerate(fields, start=start):
        name, _, kind = field.rstrip("*").partition(":")
        added = message.field.add(name=name, number=number)
        added.label = of.LABEL_REPEATED if field.endswith("*") else of.LABEL_OPTIONAL
        added.type = of.TYPE_MESSAGE if kind == "time" else getattr(of, f"TYPE_{(kind or 'string').upper()}")
        if kind == "time":
            added.type_name = "Timestamp"


def write_binary_dump(path: Path, users, items, feedback, first: int = 2, with_value: bool = False) -> Path:
    """Write a dump as Gorse sends it, with its counts after the end."""
    made = build_messages(first, with_value)

    def stamp(text):
        since = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
        return made["Timestamp"](seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)

    def number(value):
        return struct.pack("<q", value)

    parts = [number(-1)]
    for user in users:
        labels = json.dumps(user["Labels"]).encode()
        parts.append(made["User"](user_id=user["UserId"], labels=labels, comment=user["Comment"]).SerializeToString())
    parts.append(number(-2))
    for item in items:
        parts.append(
            made["Item"](
                item_id=item["ItemId"], is_hidden=item["IsHidden"], categories=item["Categories"],
                timestamp=stamp(item["Timestamp"]), labels=json.dumps(item["Labels"]).encode(), comment=item["Comment"],
            ).SerializeToString()
        )  # fmt: skip
    parts.append(number(-3))
    for one in feedback:
        more = {"value": one["Value"], "updated": stamp(one["Timestamp"])} if with_value else {}
        parts.append(
            made["Feedback"](
                feedback_type=one["FeedbackType"], user_id=one["UserId"], item_id=one["ItemId"],
                timestamp=stamp(one["Timestamp"]), comment=one["Comment"], **more,
            ).SerializeToString()
        )  # fmt: skip
    sections = {number(n) for n in (-1, -2, -3)}
    with path.open("wb") as out:
        for part in parts:
            out.write(part if part in sections else number(len(part)) + part)
        out.write(number(0))
        out.write(json.dumps({"Users": len(users), "Items": len(items), "Feedback": len(feedback)}).encode())
    return path


def list_rows(users, items, feedback) -> dict[str, tuple[str, list[tuple]]]:
    """Return the rows of Gorse's database: table → (columns with types, rows)."""

    def time(text):
        return text.replace("T", " ").replace("Z", "")

    key = "varchar(256)"
    return {
        "users": (
            f"user_id {key} PRIMARY KEY, labels json, "
            "comment text",
            [(u["UserId"], json.dumps(u["Labels"]), u["Comment"]) for u in users],
        ),
        "items": (
            f"item_id {key} PRIMARY KEY, is_hidden bool, categories json, time_stamp datetime, labels json, "
            "comment text",
            [
                (
                    i["ItemId"], int(i["IsHidden"]), json.dumps(i["Categories"]), time(i["Timestamp"]),
                    json.dumps(i["Labels"]), i["Comment"],
                )
                for i in items
            ],
        ),
        "feedback": (
            f"feedback_type {key}, user_id {key}, item_id {key}, value double, time_stamp datetime, updated datetime, "
            "comment text, PRIMARY KEY(feedback_type, user_id, item_id, time_stamp)",
            [
                (f["FeedbackType"], f["UserId"], f["ItemId"], f["Value"], time(f["Timestamp"]), None, f["Comment"])
                for f in feedback
            ],
        ),
    }  # fmt: skip


def write_sqlite_dump(path: Path, rows) -> Path:
    database = sqlite3.connect(":memory:")
    for table, (columns, values) in rows.items():
        database.execute(f"CREATE TABLE {table} ({columns})")
        database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values[0]))})", values)
    database.execute("CREATE TABLE measurements (name text)")
    database.execute("INSERT INTO measurements VALUES ('a')")
    path.write_text("\n".join(database.iterdump()), encoding="utf-8")
    return path


def write_mysql_dump(path: Path, rows) -> Path:
    """Write what mysqldump writes: names in backticks, many rows in a statement, backslashes in texts."""
    lines = ["-- MySQL dump 10.13", "/*!40101 SET NAMES utf8 */;"]
    for table, (columns, values) in rows.items():
        of_table = [c for c in columns.split(", ") if not c.startswith("PRIMARY") and " " in c]
        lines += [f"CREATE TABLE `gorse_{table}` ("]
        lines += [f"  `{c.split()[0]}` {c.split()[1]} NOT NULL," for c in of_table]
        lines += [f"  PRIMARY KEY (`{of_table[0].split()[0]}`)", ") ENGINE=InnoDB;"]
        for start in range(0, len(values), 100):
            shown = ",".join(f"({','.join(map(_quote_mysql, row))})" for row in values[start : start + 100])
            lines.append(f"INSERT INTO `gorse_{table}` VALUES {shown};")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _quote_mysql(value) -> str:
    if value is None:
        return "NULL"
    if not isinstance(value, str):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace('"', '\\"').replace("\n", "\\n")
    return f"'{escaped}'"


def write_postgresql_dump(path: Path, rows) -> Path:
    """Write what pg_dump writes: COPY with tabs and \\N."""
    lines = ["-- PostgreSQL database dump", "SET client_encoding = 'UTF8';"]
    for table, (columns, values) in rows.items():
        names = [c.split()[0] for c in columns.split(", ") if not c.startswith("PRIMARY") and " " in c]
        lines += [f"CREATE TABLE public.{table} (", *(f"    {name} text," for name in names), ");", ""]
        lines.append(f"COPY public.{table} ({', '.join(names)}) FROM stdin;")
        lines += ["\t".join(_quote_copied(v) for v in row) for row in values] + ["\\.", ""]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _quote_copied(value) -> str:
    return "\\N" if value is None else str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
