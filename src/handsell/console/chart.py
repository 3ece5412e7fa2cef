"""Data of a chart, for the browser's library and for the table that says the same in text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def describe_chart(
    x: Sequence[float | str], series: Mapping[str, Sequence[float | None]], *, kind: str = "line", is_time: bool = False
) -> str:
    """Return the JSON of a chart: values by series over `x`, which are epoch seconds (`is_time`), numbers or names.

    `kind` is line or bars. None is a gap.
    """
    document: dict[str, Any] = {
        "x": list(x), "series": [{"label": name, "values": list(values)} for name, values in series.items()],
        "kind": kind, "time": is_time,
    }  # fmt: skip
    return json.dumps(document, allow_nan=False)
