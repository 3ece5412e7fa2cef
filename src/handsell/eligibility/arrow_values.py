"""Values of Arrow arrays in NumPy, without pandas."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def read_values(array: pa.Array) -> np.ndarray:
    """Return the values (N,) of an array: numbers without null as a view, flags as a copy.

    Arrow's own conversion imports pandas, which takes 21 MiB of each stage. It is used for other types, and with nulls.
    """
    kind, t = array.type, pa.types
    if array.null_count or not (t.is_boolean(kind) or t.is_integer(kind) or t.is_floating(kind)):
        return array.to_numpy(zero_copy_only=False)
    _, values = array.buffers()
    if t.is_boolean(kind):
        if values is None:
            return np.zeros(0, bool)
        bits = np.unpackbits(np.frombuffer(values, np.uint8), count=array.offset + len(array), bitorder="little")
        return bits[array.offset :].view(bool)
    letter = "f" if t.is_floating(kind) else "i" if t.is_signed_integer(kind) else "u"
    dtype = np.dtype(f"{letter}{kind.bit_width // 8}")
    return (
        np.zeros(0, dtype)
        if values is None
        else np.frombuffer(values, dtype, len(array), array.offset * dtype.itemsize)
    )
