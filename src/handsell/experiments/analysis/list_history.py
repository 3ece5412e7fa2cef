"""List metrics of the logged slates by day (UTC): how varied, how concentrated and how repetitive lists have been."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.errors import ConfigError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.evaluation.list_metrics import (
    CREATOR_CLASSES,
    creator_sizes,
    gini_of_counts,
    intra_list_diversity,
    novelty,
    repeat_rate,
    self_information,
)
from handsell.evaluation.metrics import mean_known
from handsell.events.compacted_files import list_ranges
from handsell.experiments.analysis.analysis import load_snapshot
from handsell.experiments.analysis.list_quality import ShownLists
from handsell.experiments.analysis.log.log_database import open_log

SAMPLED = 5_000  # slates of a day for metrics of single lists, of whole people
POPULARITY = "item_positives_total"


@dataclass(frozen=True, slots=True)
class DayOfLists:
    """The slates of one day; a metric without a value is NaN."""

    day: str  # 2026-12-01
    slates: int
    people: int
    items_per_slate: float
    coverage: float  # share of the available catalog in any of the day's slates
    gini: float
    diversity: float
    novelty: float
    repeat_rate: float
    exposure: dict[str, float]  # share of places by size of the creator; empty without creators


def measure_days(config: Config, days: int = 28, surface: str | None = None) -> list[DayOfLists]:
    """Measure the days with slates among the last ones, oldest first; `surface`: slates of this one only.

    Raises ConfigError for an unknown surface, EventStoreError or DataError if the log cannot be read.
    """
    if surface is not None and surface not in config.surfaces:
        raise ConfigError(f"--surface: expected one of {', '.join(config.surfaces)}, got {surface!r}")
    with open_log(config, _find_start(config, days)) as database:
        condition, values = ("WHERE surface = ?", [surface]) if surface else ("", [])
        database.execute(
            "CREATE TABLE shown AS SELECT time // ? AS day, time, position, item_id, hash(recommendation_id) AS slate, "
            f"CASE WHEN person IS NOT NULL THEN hash(person) END AS person FROM impressions {condition}",
            [DAY_US, *values],
        )
        return list(_measure(database, days, load_snapshot(config)))


def _find_start(config: Config, days: int) -> int:
    """Return the time (µs) before which compacted files are not needed: of the newest day, others are counted back."""
    ranges = list_ranges(Layout(config.state).compacted, "impressions")
    dates = [file.path.split("date=")[1].split("/")[0] for one in ranges for file in one.files]
    newest = max((np.datetime64(date, "D").astype(int) for date in dates), default=0)
    return max(int(newest) - days + 1, 0) * DAY_US


def _measure(database: duckdb.DuckDBPyConnection, days: int, snapshot: Snapshot | None) -> Iterator[DayOfLists]:
    found = database.execute(
        "SELECT day, count(DISTINCT slate), count(DISTINCT person), count(*) FROM shown "
        "WHERE day > (SELECT max(day) FROM shown) - ? GROUP BY day ORDER BY day",
        [days],
    ).fetchall()
    about = None if snapshot is None else CatalogFigures.of(snapshot)
    for day, slates, people, items in found:
        exposed = _count_exposures(database, day)
        lists = _measure_slates(database, day, min(1.0, SAMPLED / slates), about)
        coverage, gini, exposure = (np.nan, np.nan, {}) if about is None else about.measure(*exposed)
        yield DayOfLists(
            day=f"{datetime.fromtimestamp(day * DAY_US / 1e6, UTC):%Y-%m-%d}", slates=slates, people=people,
            items_per_slate=items / slates, coverage=coverage, gini=gini, exposure=exposure, **lists,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CatalogFigures:
    """What the metrics need of the I items."""

    snapshot: Snapshot
    bits: np.ndarray  # (I,) self-information
    size: np.ndarray  # (C,) class of each creator

    @classmethod
    def of(cls, snapshot: Snapshot) -> CatalogFigures:
        popularity, names = np.zeros(len(snapshot)), snapshot.value_names
        if POPULARITY in names:
            popularity = np.nan_to_num(np.asarray(snapshot.values[:, names.index(POPULARITY)], float))
        return cls(snapshot, self_information(popularity), creator_sizes(snapshot.creator, popularity))

    def measure(self, item_ids: list[str], count: np.ndarray) -> tuple[float, float, dict[str, float]]:
        """Return coverage, Gini coefficient and exposure by size of the creator, from the exposures of items."""
        number = self.snapshot.items.number(item_ids)
        exposures = np.zeros(len(self.snapshot), np.int64)
        exposures[number[number >= 0]] = count[number >= 0]
        available = np.asarray(self.snapshot.available)
        if not available.any():
            return np.nan, np.nan, {}
        coverage = float(((exposures > 0) & available).sum() / available.sum())
        known = (self.snapshot.creator >= 0) & (exposures > 0)
        of_class = np.bincount(self.size[self.snapshot.creator[known]], weights=exposures[known], minlength=3)
        shares = (of_class / of_class.sum()).tolist() if of_class.sum() else []
        return coverage, gini_of_counts(exposures[available]), dict(zip(CREATOR_CLASSES, shares, strict=False))


def _count_exposures(database: duckdb.DuckDBPyConnection, day: int) -> tuple[list[str], np.ndarray]:
    rows = database.execute("SELECT item_id, count(*) AS n FROM shown WHERE day = ? GROUP BY item_id", [day])
    table = rows.to_arrow_table()
    return table["item_id"].to_pylist(), table["n"].to_numpy()


def _measure_slates(
    database: duckdb.DuckDBPyConnection, day: int, share: float, about: CatalogFigures | None
) -> dict[str, float]:
    """Return means over sampled slates; without a catalog only what ids tell."""
    rows = database.execute(
        "SELECT dense_rank() OVER (ORDER BY slate) - 1 AS row, item_id, time, CASE WHEN person IS NULL THEN -1 "
        "ELSE dense_rank() OVER (ORDER BY person) END AS unit FROM shown WHERE day = ? "
        "AND (hash(coalesce(person, slate), 'sample') % 1000000) < ? ORDER BY row, position",
        [day, int(share * 1_000_000)],
    ).to_arrow_table()
    nan = float("nan")
    if not len(rows):
        return {"diversity": nan, "novelty": nan, "repeat_rate": nan}
    slates = ShownLists.of(rows, None if about is None else about.snapshot)
    repeats = mean_known(repeat_rate(slates.items, slates.unit, slates.time))
    found = {"diversity": nan, "novelty": nan, "repeat_rate": repeats}
    if about is not None:
        found["novelty"] = mean_known(novelty(slates.items, about.bits))
        if len(about.snapshot.tags):
            found["diversity"] = mean_known(intra_list_diversity(slates.items, about.snapshot.tag_matrix))
    return found
