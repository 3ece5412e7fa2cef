"""Values of Arrow arrays without pandas equal Arrow's own conversion."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from handsell.eligibility.arrow_values import read_values

ARRAYS = {
    "flags": pa.array([True, False, True, True, False, False, True, True, False, True]),
    "no flags": pa.array([], pa.bool_()),
    **{str(kind): pa.array(range(10), kind) for kind in (pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.uint64())},
    "half": pa.array(np.arange(10, dtype=np.float16)),
    "float": pa.array([0.5, np.nan, -1.0, *range(7)], pa.float32()),
    "double": pa.array([0.1, np.inf, -1.0, *range(7)], pa.float64()),
    "no numbers": pa.array([], pa.int32()),
    "nulls": pa.array([1, None, 3], pa.int32()),
    "null flags": pa.array([True, None]),
    "texts": pa.array(["a", "b"]),
    "times": pa.array([datetime(2024, 1, 31, tzinfo=UTC)]),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("begin", [0, 1, 9])
def test_values_are_those_of_arrow(name, begin):
    array = ARRAYS[name][begin:]
    values, expected = read_values(array), array.to_numpy(zero_copy_only=False)
    assert values.dtype == expected.dtype
    np.testing.assert_array_equal(values, expected)


def test_numbers_are_not_copied():
    array = pa.array(np.arange(10))
    assert read_values(array[3:]).ctypes.data == array.buffers()[1].address + 24
