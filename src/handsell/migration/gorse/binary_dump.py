"""Read Gorse's binary dump (`GET /api/dump`): sections of protocol buffer messages, each with its length.

A length is an int64, little-endian; -1, -2 and -3 begin users, items and feedback, and 0 ends the dump. Two layouts are
in use: with a field `namespace` before the others, and without. The place of the timestamp, which is always there, says
which. `value` of a feedback is the only double.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import IO, Any, NamedTuple

import orjson

from handsell.core.errors import DataError
from handsell.data.readers.formats.file_access import TableFile, open_binary
from handsell.migration.tally import SourcePlace, Tally

END, USERS, ITEMS, FEEDBACK = 0, -1, -2, -3
LONGEST = 256 << 20  # bytes of a message
VARINT, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAMES = {USERS: "users", ITEMS: "items", FEEDBACK: "feedback"}


class MessageField(NamedTuple):
    """A field of a message: number, wire type and value."""

    number: int
    kind: int
    value: Any


def is_dump(start: bytes) -> bool:
    """Whether a file begins like a dump."""
    return len(start) >= 8 and struct.unpack("<q", start[:8])[0] in (USERS, ITEMS, FEEDBACK, END)


def read_dump(file: TableFile, tally: Tally) -> Iterator[tuple[dict[str, Any], SourcePlace]]:
    """Yield the records of a dump with Gorse's names; raises DataError for a dump that is cut off."""
    counts = {USERS: 0, ITEMS: 0, FEEDBACK: 0}
    with open_binary(file) as opened:
        section, number = END, 0
        while (size := _read_size(opened, file, number)) != END:
            if size < 0:
                if size not in NAMES:
                    raise DataError(
                        f"{file}: expected a section of users, items or feedback, got {size}: no Gorse dump"
                    )
                section = size
                continue
            if section == END or size > LONGEST:
                raise DataError(f"{file}: expected a section and then its records, got a record of {size:,} bytes")
            number += 1
            message = opened.read(size)
            if len(message) < size:
                raise _cut_off(file, number)
            counts[section] += 1
            yield _decode(section, message, file, number, tally), SourcePlace(str(file), number, "record")
        _compare_counts(opened.read(4_096), counts, file, tally)


def _read_size(opened: IO[bytes], file: TableFile, number: int) -> int:
    found = opened.read(8)
    if len(found) < 8:
        raise _cut_off(file, number)
    return struct.unpack("<q", found)[0]


def _cut_off(file: TableFile, number: int) -> DataError:
    return DataError(
        f"{file}: expected a complete dump, got one that is cut off after record {number:,}: fetch it again"
    )


def _compare_counts(rest: bytes, counts: dict[int, int], file: TableFile, tally: Tally) -> None:
    """Compare with the counts that Gorse sends after the dump, where they are kept."""
    try:
        said = orjson.loads(rest)
    except orjson.JSONDecodeError:
        return
    for section, name in NAMES.items():
        told = said.get(name.capitalize()) if isinstance(said, dict) else None
        if isinstance(told, int) and told != counts[section]:
            tally.notes.append(f"{file}: Gorse says that it dumped {told:,} {name}, the file has {counts[section]:,}")


def _decode(section: int, message: bytes, file: TableFile, number: int, tally: Tally) -> dict[str, Any]:
    try:
        fields = list(parse_message(message))
        build = {USERS: _build_user, ITEMS: _build_item, FEEDBACK: _build_feedback}[section]
        record, unknown = build(fields)
    except (ValueError, IndexError, struct.error, UnicodeDecodeError):
        raise DataError(
            f"{file}: record {number:,} ({NAMES[section]}) cannot be decoded: expected a dump of Gorse 0.4 or 0.5; "
            "export JSON lines instead (the dashboard's export, or /api/bulk)"
        ) from None
    for name in unknown:
        tally.drop("events" if section == FEEDBACK else NAMES[section], f"field {name} of the dump")
    return record


def parse_message(message: bytes) -> Iterator[MessageField]:
    """Yield the fields of a protocol buffer message; raises ValueError or IndexError for what is none."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("field 0")
        if kind == VARINT:
            value, at = _read_varint(message, at)
            yield MessageField(number, kind, value)
        elif kind in (DOUBLE, FLOAT):
            size = 8 if kind == DOUBLE else 4
            if at + size > len(message):
                raise ValueError("cut off")
            yield MessageField(number, kind, struct.unpack_from("<d" if kind == DOUBLE else "<f", message, at)[0])
            at += size
        elif kind == BYTES:
            size, at = _read_varint(message, at)
            if at + size > len(message):
                raise ValueError("cut off")
            yield MessageField(number, kind, message[at : at + size])
            at += size
        else:
            raise ValueError(f"wire type {kind}")


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _read_timestamp(field: MessageField) -> str | None:
    """Return the time of a field in ISO 8601; None if the field is no timestamp."""
    if field.kind != BYTES:
        return None
    try:
        parts = list(parse_message(field.value))
    except (ValueError, IndexError, struct.error):
        return None
    if any(part.kind != VARINT or part.number not in (1, 2) for part in parts):
        return None
    found = {part.number: part.value for part in parts}
    seconds = found.get(1, 0)
    seconds -= (seconds >> 63) << 64  # two's complement
    try:
        return (EPOCH + timedelta(seconds=seconds, microseconds=found.get(2, 0) // 1_000)).isoformat()
    except OverflowError:
        return None


def _build_user(fields: list[MessageField]) -> tuple[dict[str, Any], list[int]]:
    names = {1: "UserId", 2: "Labels", 3: "Comment", 4: "Subscribe"}
    return _name(fields, names, {}), _list_unknown(fields, names)


def _build_item(fields: list[MessageField]) -> tuple[dict[str, Any], list[int]]:
    times = {f.number: time for f in fields if f.number in (4, 5) and (time := _read_timestamp(f)) is not None}
    if not times:
        raise ValueError("no timestamp")
    shift = max(times) - 4  # 1 with a namespace before the other fields
    order = ("ItemId", "IsHidden", "Categories", "Timestamp", "Labels", "Comment")
    names = dict(enumerate(order, start=1 + shift))
    record = _name([f for f in fields if names.get(f.number) != "Timestamp"], names, {"IsHidden": False})
    return {**record, "Timestamp": times[max(times)]}, _list_unknown(fields, names)


def _build_feedback(fields: list[MessageField]) -> tuple[dict[str, Any], list[int]]:
    """Three texts are the key; the first time is that of the feedback, a double its value, later text the comment."""
    texts: list[tuple[int, str]] = []
    times: list[tuple[int, str]] = []
    record: dict[str, Any] = {}
    unknown = []
    for field in sorted(fields, key=lambda f: f.number):
        time = _read_timestamp(field) if field.number > 3 else None
        if field.kind == DOUBLE:
            record["Value"] = field.value
        elif time is not None:
            times.append((field.number, time))
        elif field.kind == BYTES:
            texts.append((field.number, field.value.decode()))
        else:
            unknown.append(field.number)
    first_time = times[0][0] if times else max(number for number, _ in texts) + 1
    key = [text for number, text in texts if number < first_time]
    record |= dict(zip(("FeedbackType", "UserId", "ItemId"), key[-3:], strict=True))
    for number, text in texts:
        if number > first_time:
            record["Comment"] = text
    return {**record, "Timestamp": times[0][1] if times else None}, unknown


def _name(fields: list[MessageField], names: dict[int, str], record: dict[str, Any]) -> dict[str, Any]:
    for field in fields:
        name = names.get(field.number)
        if name is None:
            continue
        if name == "IsHidden":
            record[name] = bool(field.value)
        elif name == "Labels":
            record[name] = orjson.loads(field.value)
        elif name in ("Categories", "Subscribe"):
            record.setdefault(name, []).append(field.value.decode())
        else:
            record[name] = field.value.decode()
    return record


def _list_unknown(fields: list[MessageField], names: dict[int, str]) -> list[int]:
    return [field.number for field in fields if field.number not in names]
