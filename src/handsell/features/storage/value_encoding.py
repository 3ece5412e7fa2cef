"""Feast's encoding of feature values, a column at a time: Feast reads what is encoded here, and the reverse.

A value is a protobuf message `Value` with one of many fields; a list is a message in it, whose one field is `val`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

# before the other imports of Feast
import handsell.features.feast_import  # noqa: F401 # isort: skip

import pyarrow as pa
from feast.protos.feast.types.Value_pb2 import Int64List, Value

MISSING = Value().SerializeToString()
FIELDS = Value.DESCRIPTOR.fields_by_name
VAL = b"\n"  # tag of the field of a list, followed by the number of its bytes
DOUBLE_TAG = Value(double_val=0.0).SerializeToString()[0]
_DOUBLE = struct.Struct("<Bd")

Cut = Callable[[int, int], bytes]
"""Returns the encoded list of the values from one place to another."""


def encode_column(column: pa.Array) -> list[bytes]:
    """Return the encoded cells (N,) of a column of numbers, texts, flags, or lists of texts, integers or floats."""
    if pa.types.is_list(column.type):
        return _encode_lists(column)
    cells, field = read_scalars(column), _SCALARS[column.type]
    if column.type != pa.float64():
        return [MISSING if cell is None else Value(**{field: cell}).SerializeToString() for cell in cells]
    tag, raw = bytes([DOUBLE_TAG]), column.to_numpy(zero_copy_only=False).tobytes()
    return [MISSING if cell is None else tag + raw[8 * i : 8 * i + 8] for i, cell in enumerate(cells)]


def read_scalars(column: pa.Array) -> list[Any]:
    """Return the cells (N,) of a column without lists, None where Feast has no value: for null and NaN."""
    fast = pa.types.is_primitive(column.type) and not column.null_count
    cells = column.to_numpy(zero_copy_only=False).tolist() if fast else column.to_pylist()
    return [None if cell != cell else cell for cell in cells]


def _encode_lists(column: pa.Array) -> list[bytes]:
    field, prepare = _LISTS[column.type.value_type]
    tag, cut = _encode_length(FIELDS[field].number << 3 | 2), prepare(column.values)
    offsets, known = column.offsets.tolist(), column.is_valid().to_pylist()
    bounds = zip(offsets[:-1], offsets[1:], known, strict=True)
    lists = [cut(begin, end) if is_known else None for begin, end, is_known in bounds]
    return [MISSING if part is None else tag + _encode_length(len(part)) + part for part in lists]


def _prepare_texts(values: pa.Array) -> Cut:
    """Encode each distinct text once."""
    coded = values.dictionary_encode()
    texts = [text.encode() for text in coded.dictionary.to_pylist()]
    distinct = [VAL + _encode_length(len(text)) + text for text in texts]
    pieces = [distinct[code] for code in coded.indices.to_numpy().tolist()]
    return lambda begin, end: b"".join(pieces[begin:end])


def _prepare_integers(values: pa.Array) -> Cut:
    numbers = values.to_numpy().tolist()
    return lambda begin, end: Int64List(val=numbers[begin:end]).SerializeToString()


def _prepare_floats(values: pa.Array) -> Cut:
    raw = values.to_numpy().astype("<f4").tobytes()

    def cut(begin: int, end: int) -> bytes:
        return VAL + _encode_length(4 * (end - begin)) + raw[4 * begin : 4 * end] if begin < end else b""

    return cut


_SCALARS: dict[pa.DataType, str] = {
    pa.int64(): "int64_val", pa.float64(): "double_val", pa.float32(): "float_val", pa.string(): "string_val",
    pa.bool_(): "bool_val",
}  # fmt: skip
_LISTS: dict[pa.DataType, tuple[str, Callable[[pa.Array], Cut]]] = {
    pa.string(): ("string_list_val", _prepare_texts),
    pa.int64(): ("int64_list_val", _prepare_integers),
    pa.float32(): ("float_list_val", _prepare_floats),
}


@lru_cache(4_096)
def _encode_length(number: int) -> bytes:
    """Return a varint."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode_column(cells: Sequence[bytes | None], field: str) -> list[Any]:
    """Return the values (N,) of cells; None where a cell is missing or is not of this field of Feast's Value."""
    if field == "double_val":
        fast = [None if cell is None or len(cell) != 9 else _DOUBLE.unpack(cell) for cell in cells]
        return [None if pair is None or pair[0] != DOUBLE_TAG else pair[1] for pair in fast]
    is_list, values = field.endswith("_list_val"), list[Any]()
    for cell in cells:
        value = Value.FromString(cell) if cell else None
        if value is None or value.WhichOneof("val") != field:
            values.append(None)
        else:
            inner = getattr(value, field)
            values.append(list(inner.val) if is_list else inner)
    return values
