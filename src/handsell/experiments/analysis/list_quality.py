"""List metrics of each arm from the logged slates: a guard against an arm that wins clicks with worse lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import duckdb
import numpy as np
import pyarrow as pa

from handsell.catalog.snapshot import Snapshot
from handsell.evaluation.list_metrics import gini_of_counts, intra_list_diversity, repeat_rate
from handsell.evaluation.metrics import mean_known

SAMPLED = 20_000  # slates of an arm for metrics of single lists, of whole units


@dataclass(frozen=True, slots=True)
class ShownLists:
    """B slates with up to n items."""

    items: np.ndarray  # (B, n) int32, -1 padding and items that the snapshot lacks
    unit: np.ndarray  # (B,)
    time: np.ndarray  # (B,) µs

    @classmethod
    def of(cls, rows: pa.Table, snapshot: Snapshot | None) -> Self:
        """Build them from rows in the order of slates and places: row (number of the slate), item_id, time, unit."""
        row = rows["row"].to_numpy()
        first = np.flatnonzero(np.diff(row, prepend=-1))
        place = np.arange(len(row)) - first[row]
        coded = rows["item_id"].combine_chunks().dictionary_encode()
        names = coded.dictionary.to_pylist()
        number = np.arange(len(names)) if snapshot is None else snapshot.items.number(names)
        items = np.full((len(first), int(place.max(initial=0)) + 1), -1, np.int32)
        items[row, place] = np.asarray(number)[coded.indices.to_numpy()]
        return cls(items, rows["unit"].to_numpy()[first], rows["time"].to_numpy()[first])


def measure_lists(
    database: duckdb.DuckDBPyConnection, arms: tuple[str, ...], snapshot: Snapshot | None
) -> dict[str, dict[str, float]]:
    """Return metric → arm → value from the table `shown`; without a snapshot, no diversity and coverage of shown items.

    Coverage grows with the number of slates: it is that of equally many slates, as many as the smallest arm has.
    """
    found: dict[str, dict[str, float]] = {}
    sizes = dict(
        database.execute("SELECT arm, count(*) FROM slates GROUP BY arm").fetchall()
    )  # fmt: skip
    if len(sizes) < len(arms):
        return {}
    share = {arm: min(sizes.values()) / size for arm, size in sizes.items()}
    total = _count_items(database) if snapshot is None else int(np.count_nonzero(snapshot.available))
    for number, arm in enumerate(arms):
        counts = _count_exposures(database, number, share[number])
        values = {
            "items per slate": _divide(database, number),
            "coverage": len(counts) / max(total, 1),
            "gini": gini_of_counts(np.concatenate([counts, np.zeros(max(total - len(counts), 0), np.int64)])),
            **_measure_slates(database, number, min(1.0, SAMPLED / sizes[number]), snapshot),
        }
        for name, value in values.items():
            found.setdefault(name, {})[arm] = float(value)
    return found


def _count_items(database: duckdb.DuckDBPyConnection) -> int:
    return int((database.execute("SELECT count(DISTINCT item) FROM shown").fetchone() or (0,))[0])


def _sample(key: str, share: float) -> str:
    """Return a condition that holds for a share of the values of a hashed column."""
    return f"(hash({key}, 'sample') % 1000000) < {int(share * 1_000_000)}"


def _count_exposures(database: duckdb.DuckDBPyConnection, arm: int, share: float) -> np.ndarray:
    sql = f"SELECT count(*) AS n FROM shown WHERE arm = ? AND {_sample('slate', share)} GROUP BY item"
    return database.execute(sql, [arm]).fetchnumpy()["n"]


def _divide(database: duckdb.DuckDBPyConnection, arm: int) -> float:
    sql = "SELECT sum(items) / count(*) FROM slates WHERE arm = ?"
    return float((database.execute(sql, [arm]).fetchone() or (float("nan"),))[0])


def _measure_slates(
    database: duckdb.DuckDBPyConnection, arm: int, share: float, snapshot: Snapshot | None
) -> dict[str, float]:
    """Return means over sampled slates."""
    rows = database.execute(
        "SELECT dense_rank() OVER (ORDER BY slate) - 1 AS row, item_id, time, "
        "dense_rank() OVER (ORDER BY unit) AS unit "
        f"FROM shown JOIN item_names USING (item) WHERE arm = ? AND {_sample('unit', share)} ORDER BY row, position",
        [arm],
    ).to_arrow_table()
    if not len(rows):
        return {}
    slates = ShownLists.of(rows, snapshot)
    found = {"repeated from the last slate": mean_known(repeat_rate(slates.items, slates.unit, slates.time))}
    if snapshot is not None and len(snapshot.tags):
        found["diversity of tags"] = mean_known(intra_list_diversity(slates.items, snapshot.tag_matrix))
    return found
