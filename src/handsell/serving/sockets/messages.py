"""Messages between a gateway and the stages: plain values and batches, with their arrays before them, without pickle.

A message is a header, arrays, each on a multiple of 64 bytes, and a tree in MessagePack that refers to them. A process
reads only the classes that are listed here, so that nobody who reaches a socket can make it run anything.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import msgpack
import numpy as np

from handsell.core.batches import (
    Candidates,
    History,
    Profile,
    Ragged,
    Requests,
    RulesStamp,
    Seen,
    Slates,
    UserExclusions,
    to_object_array,
)
from handsell.serving.telemetry.feature_log import Sample

VERSION = 1
HEADER = struct.Struct("<2sBBIII")  # MAGIC, VERSION, kind, number of the call, bytes of the tree, bytes of the arrays
MAGIC = b"hs"
CHALLENGE, PROOF, WELCOME, CALL, ANSWER, FAILURE, CANCEL = range(1, 8)  # kinds
MOST_BYTES = 2**30  # of a tree or of arrays
ALIGNMENT = 64  # of arrays in a message; in memory they are aligned as `bytearray` is, which suits every number
ARRAY, OBJECTS, BATCH = range(1, 4)  # extension types of the tree
PLAIN_KINDS = "biuf"  # of arrays, see numpy.dtype.kind
Buffer = bytes | bytearray | memoryview

BATCHES: dict[str, type] = {
    one.__name__: one
    for one in (
        Requests, History, Profile, Seen, UserExclusions, Ragged, Candidates, Slates, RulesStamp, Sample,
    )
}  # fmt: skip
FIELDS: dict[type, tuple[str, ...]] = {one: tuple(field.name for field in fields(one)) for one in BATCHES.values()}


def allow(batch: type) -> None:
    """Let messages have another class of batches, a dataclass."""
    BATCHES[batch.__name__], FIELDS[batch] = batch, tuple(field.name for field in fields(batch))


class MessageError(Exception):
    """Bytes that are not a message of this version."""


class NoMessageError(Exception):
    """A value that no message can have, such as an attribute of a type that only Python knows."""


@dataclass(frozen=True, slots=True)
class Header:
    kind: int
    number: int
    tree: int
    arrays: int

    @classmethod
    def read(cls, data: Buffer) -> Header:
        magic, version, kind, number, tree, arrays = HEADER.unpack(data)
        if magic != MAGIC or version != VERSION:
            raise MessageError(f"expected a message of version {VERSION}, got {bytes(data[:3])!r}")
        if tree > MOST_BYTES or arrays > MOST_BYTES:
            raise MessageError(f"expected at most {MOST_BYTES:,} bytes, got {max(tree, arrays):,}")
        return cls(kind, number, tree, arrays)


def encode(kind: int, number: int, value: Any) -> list[Buffer]:
    """Return the parts of a message, to be sent one after the other; raises NoMessageError."""
    writer = _Writer()
    try:
        tree = msgpack.packb(value, default=writer.pack)
    except (TypeError, ValueError, OverflowError) as error:
        raise NoMessageError(str(error)) from None
    header = HEADER.pack(MAGIC, VERSION, kind, number, len(tree), writer.size)
    return [header, *writer.parts, tree]


def decode(header: Header, data: bytearray) -> Any:
    """Return the value of a message whose tree and arrays are `data`; its arrays share the memory of `data`."""
    view = memoryview(data)
    try:
        return _Reader(view[: header.arrays]).unpack(view[header.arrays : header.arrays + header.tree])
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise MessageError(f"expected a tree of plain values and batches, got one that is damaged: {error}") from None


class _Writer:
    """Packs what MessagePack does not know, and collects the arrays."""

    def __init__(self) -> None:
        self.parts: list[Buffer] = []
        self.size = 0

    def pack(self, value: Any) -> msgpack.ExtType | Any:
        names = FIELDS.get(type(value))
        if names is not None:
            content = [type(value).__name__, *[getattr(value, name) for name in names]]
            return msgpack.ExtType(BATCH, msgpack.packb(content, default=self.pack))
        if isinstance(value, np.ndarray):
            return self._pack_array(value)
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"a message has no {type(value).__name__}")

    def _pack_array(self, value: np.ndarray) -> msgpack.ExtType:
        if value.dtype == object:
            rows = value if value.ndim == 2 else value.reshape(len(value), -1)
            return msgpack.ExtType(
                OBJECTS, msgpack.packb([value.ndim, rows.shape[1], rows.tolist()], default=self.pack)
            )
        if value.dtype.kind not in PLAIN_KINDS:
            raise TypeError(f"a message has no arrays of {value.dtype}")
        described = msgpack.packb([value.dtype.str, value.shape, self.size])
        if value.nbytes:
            self.parts.append(np.ascontiguousarray(value).data.cast("B"))
            if rest := -value.nbytes % ALIGNMENT:
                self.parts.append(bytes(rest))
            self.size += value.nbytes + rest
        return msgpack.ExtType(ARRAY, described)


class _Reader:
    def __init__(self, arrays: memoryview):
        self._arrays = arrays

    def unpack(self, tree: Buffer) -> Any:
        return msgpack.unpackb(tree, ext_hook=self._read, use_list=False, strict_map_key=False)

    def _read(self, code: int, content: bytes) -> Any:
        if code == ARRAY:
            return self._read_array(*self.unpack(content))
        if code == OBJECTS:
            dimensions, width, rows = self.unpack(content)
            table = to_object_array(rows, width)
            return table if dimensions == 2 else table.reshape(-1)
        if code == BATCH:
            name, *values = self.unpack(content)
            return BATCHES[name](*values)
        raise ValueError(f"unknown extension {code}")

    def _read_array(self, kind: str, shape: Sequence[int], start: int) -> np.ndarray:
        dtype = np.dtype(kind)
        if dtype.kind not in PLAIN_KINDS:
            raise ValueError(f"unknown kind of array {kind!r}")
        count = 1
        for length in shape:
            count *= length
        if not count:
            return np.empty(shape, dtype)
        return np.frombuffer(self._arrays, dtype, count, start).reshape(shape)
