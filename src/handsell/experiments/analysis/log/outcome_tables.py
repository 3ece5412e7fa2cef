"""Outcomes per unit from the log, by SQL whose memory is bounded: credit of clicks, windows, and counts by day.

A unit belongs to the arm of its first exposure. A positive event is credited to the item of the slate that it names
by `recommendation_id`; an event that names none, to the unit's last impression of the item within the credit window.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from handsell.config import Config
from handsell.core.units import DAY_US, HOUR_US
from handsell.experiments.analysis.log.log_database import open_log, quote
from handsell.experiments.analysis.log.outcomes import UnitOutcomes


@dataclass(frozen=True, slots=True)
class OutcomeWindows:
    """How long after an impression or an exposure an event counts."""

    credit_hours: float = 24.0  # of a positive event to an impression of its item
    conversion_days: float = 7.0  # of an event after the unit's first exposure
    before_days: float = 28.0  # before the first exposure, for CUPED

    @property
    def credit_us(self) -> int:
        return int(self.credit_hours * HOUR_US)

    @property
    def conversion_us(self) -> int:
        return int(self.conversion_days * DAY_US)

    @property
    def before_us(self) -> int:
        return int(self.before_days * DAY_US)


@dataclass(frozen=True, slots=True)
class ExposureFilter:
    """Which logged slates are exposures, and to which arm."""

    arms: tuple[str, ...]  # control first
    experiment: str | None  # None: every slate counts as the first arm, to plan an experiment
    unit: str = "user"
    interleaved: bool = False  # slates that two arms share; they count as the first arm
    surfaces: tuple[str, ...] = ()
    since: int = 0  # µs
    until: int = 2**62


@dataclass(frozen=True)
class OutcomeTables:
    """The tables of one experiment in an open database; `read` gives the outcomes as of any time."""

    database: duckdb.DuckDBPyConnection
    chosen: ExposureFilter
    types: tuple[str, ...]
    windows: OutcomeWindows
    first: int | None  # µs, first exposure of any unit
    last: int | None  # µs, last event or exposure

    def list_looks(self) -> list[int]:
        """Return the ends of the days from the first exposure on, and the end of the data; µs."""
        if self.first is None or self.last is None:
            return []
        ends = range((self.first // DAY_US + 1) * DAY_US, self.last + 1, DAY_US)
        return [*ends, self.last + 1]

    def read(self, until: int | None = None) -> UnitOutcomes:
        """Return the outcomes at a midnight or, without a time, at the end of the data."""
        end = until if until is not None else (self.last or 0) + 1
        sums = ", ".join(f"coalesce(sum(d.{name}), 0) AS {name}" for name in ("slates", "shown", "clicks"))
        of_types = "".join(f", coalesce(sum(d.type_{t}), 0) AS type_{t}" for t in range(len(self.types)))
        table = self.database.execute(
            f"SELECT u.*, c.* EXCLUDE (unit), {sums}{of_types} FROM units u JOIN constants c USING (unit) "
            f"LEFT JOIN daily d ON u.unit = d.unit AND d.day < {-(-end // DAY_US)} WHERE u.first < {end} GROUP BY ALL"
        ).to_arrow_table()
        return self._build(table, end)

    def _build(self, table: pa.Table, end: int) -> UnitOutcomes:
        def column(name: str) -> np.ndarray:
            return table[name].to_numpy()

        def columns(prefix: str) -> np.ndarray:
            found = [column(f"{prefix}_{t}") for t in range(len(self.types))]
            return np.stack(found, axis=1) if found else np.zeros((len(table), 0))

        return UnitOutcomes(
            arms=self.chosen.arms, types=self.types, until=end, conversion_us=self.windows.conversion_us,
            unit=column("unit_id"), arm=column("arm").astype(np.int8), first=column("first"),
            slates=column("slates").astype(np.int64), first_day_slates=column("first_day_slates"),
            busiest_hour=column("busiest_hour"), shown=column("shown").astype(np.int64),
            clicks=column("clicks").astype(np.int64), events=columns("type").astype(np.int64),
            converted=columns("converted").astype(bool), before=columns("before").astype(np.int64),
            active_1=column("active_1").astype(bool), active_7=column("active_7").astype(bool),
            crossed=column("crossed").astype(bool), merged=column("merged").astype(bool),
        )  # fmt: skip


@contextmanager
def open_outcomes(
    config: Config, chosen: ExposureFilter, windows: OutcomeWindows | None = None
) -> Iterator[OutcomeTables]:
    """Read the log of a deployment and build the tables of one experiment."""
    windows = windows or OutcomeWindows()
    with open_log(config, chosen.since, chosen.since - windows.before_us) as database:
        yield build_tables(database, config, chosen, windows)


def build_tables(
    database: duckdb.DuckDBPyConnection, config: Config, chosen: ExposureFilter, windows: OutcomeWindows
) -> OutcomeTables:
    """Create the tables `shown`, `slates`, `units`, `actions`, `clicked`, `daily` and `constants`."""
    seen = {name: kind for name, kind in config.events.types.items() if kind.seen}
    positive = [t for t, kind in enumerate(seen.values()) if kind.weight > 0 or kind.weight_by_value]
    _register_types(database, tuple(seen))
    _create_shown(database, chosen)
    _create_units(database)
    _create_actions(database, chosen, windows)
    _create_clicks(database, positive, windows)
    _create_daily(database, len(seen))
    _create_constants(database, len(seen), windows)
    bounds = database.execute(
        "SELECT (SELECT min(first) FROM units), "
        "greatest((SELECT max(time) FROM shown), (SELECT max(time) FROM actions))"
    ).fetchone()
    first, last = bounds or (None, None)
    return OutcomeTables(database, chosen, tuple(seen), windows, first, last)


def _register_types(database: duckdb.DuckDBPyConnection, types: Sequence[str]) -> None:
    database.execute("CREATE TABLE event_types (name VARCHAR, number TINYINT)")
    if types:
        database.executemany("INSERT INTO event_types VALUES (?, ?)", [[name, n] for n, name in enumerate(types)])


def _create_shown(database: duckdb.DuckDBPyConnection, chosen: ExposureFilter) -> None:
    """One row per shown item of the exposures."""
    arm, unit_id, condition = "0", "person", "person IS NOT NULL"
    if chosen.experiment is not None and chosen.interleaved:
        condition += f" AND interleaved = {quote(chosen.experiment)}"
    elif chosen.experiment is not None:
        _register_arms(database, chosen)
        arm, condition = "a.number", "person IS NOT NULL AND a.number IS NOT NULL"
        if chosen.unit != "user":
            unit_id = f"coalesce(json_extract_string(units, '$.{chosen.experiment}'), person)"
        condition += f" AND (stopped IS NULL OR json_extract_string(stopped, '$.{chosen.experiment}') IS NULL)"
    join = "" if arm == "0" else "LEFT JOIN arm_texts a ON i.arms = a.text"
    surfaces = f" AND surface IN ({', '.join('?' * len(chosen.surfaces))})" if chosen.surfaces else ""
    rows = f"FROM impressions i {join} WHERE {condition} AND time >= ? AND time < ?{surfaces}"
    values = [chosen.since, chosen.until, *chosen.surfaces]
    database.execute(
        f"CREATE TABLE shown AS SELECT hash({unit_id}) AS unit, hash(person) AS person, "
        "hash(item_id) AS item, hash(recommendation_id) AS slate, time, position, teams AS team, "
        f"{arm}::TINYINT AS arm {rows}",
        values,
    )
    database.execute(  # texts apart: a table of numbers is much smaller
        f"CREATE TABLE unit_names AS SELECT unit_id, hash(unit_id) AS unit FROM (SELECT DISTINCT {unit_id} AS unit_id "
        f"{rows})",
        values,
    )
    database.execute(
        f"CREATE TABLE item_names AS SELECT item_id, hash(item_id) AS item FROM (SELECT DISTINCT item_id {rows})",
        values,
    )


def _register_arms(database: duckdb.DuckDBPyConnection, chosen: ExposureFilter) -> None:
    """The number of the arm for each text of arms that slates have; few texts are different."""
    database.execute("CREATE TABLE arm_texts (text VARCHAR, number TINYINT)")
    texts = database.execute("SELECT DISTINCT arms FROM impressions WHERE arms IS NOT NULL").fetchall()
    arms = {text: json.loads(text).get(chosen.experiment) for (text,) in texts}
    rows = [[text, chosen.arms.index(arm)] for text, arm in arms.items() if arm in chosen.arms]
    if rows:
        database.executemany("INSERT INTO arm_texts VALUES (?, ?)", rows)


def _create_units(database: duckdb.DuckDBPyConnection) -> None:
    """The slates of each unit, and the units with the arm of their first slate."""
    database.execute(
        "CREATE TABLE slates AS SELECT unit, slate, any_value(person) AS person, "
        "any_value(arm) AS arm, min(time) AS time, count(*) AS items FROM shown "
        "GROUP BY unit, slate"
    )
    database.execute(
        "CREATE TABLE units AS SELECT * EXCLUDE (several, joined), several AND NOT joined AS crossed, "
        "several AND joined AS merged FROM (SELECT unit, any_value(unit_id) AS unit_id, any_value(person) AS person, "
        "min(time) AS first, arg_min(arm, time) AS arm, min(arm) < max(arm) AS several, "
        "any_value(person) IN (SELECT hash(user_id) FROM owners) AS joined "
        "FROM slates JOIN unit_names USING (unit) GROUP BY unit)"
    )


def _create_actions(database: duckdb.DuckDBPyConnection, chosen: ExposureFilter, windows: OutcomeWindows) -> None:
    """The events of exposed people, as `people_events`, and those after the first exposure by unit, as `actions`.

    The store gives the events of a merged visitor new offsets, so that compacted files may have them twice.
    """
    (merged,) = database.execute("SELECT count(*) FROM owners").fetchone() or (0,)
    database.execute(
        f"CREATE TABLE people_events AS SELECT {'DISTINCT' if merged else ''} hash(person) AS person, "
        "hash(item_id) AS item, t.number AS type, time, "
        "CASE WHEN recommendation_id IS NOT NULL THEN hash(recommendation_id) END AS slate, hash(event_id) AS event "
        "FROM events e JOIN event_types t ON e.type = t.name WHERE time < ? "
        "AND time >= (SELECT min(first) FROM units) - ? AND hash(person) IN (SELECT person FROM units)",
        [chosen.until, windows.before_us],
    )
    if chosen.unit == "user" or chosen.experiment is None:
        database.execute(
            "CREATE TABLE actions AS SELECT e.*, u.unit FROM people_events e JOIN units u ON e.person = u.unit "
            "WHERE e.time >= u.first"
        )
        return
    database.execute(  # of the slate that it names, else of the person's last slate
        "CREATE TABLE actions AS SELECT * FROM (SELECT e.*, coalesce(own.unit, last.unit) AS unit FROM people_events e "
        "LEFT JOIN slates own ON e.slate = own.slate ASOF LEFT JOIN slates last ON e.person = last.person "
        f"AND e.time >= last.time WHERE own.unit IS NOT NULL OR e.time - last.time <= {windows.credit_us}) "
        "WHERE unit IS NOT NULL"
    )


def _create_clicks(database: duckdb.DuckDBPyConnection, positive: Sequence[int], windows: OutcomeWindows) -> None:
    """One row per shown item with a credited positive event, with the time of the first one."""
    types = ", ".join(map(str, positive)) or "NULL"
    database.execute(
        f"""CREATE TABLE clicked AS SELECT unit, slate, item, min(time) AS time FROM (
        SELECT s.unit, s.slate, s.item, e.time FROM actions e JOIN shown s ON e.slate = s.slate AND e.item = s.item
        AND e.unit = s.unit WHERE e.type IN ({types}) AND e.time >= s.time
        UNION ALL
        SELECT s.unit, s.slate, s.item, e.time
        FROM (SELECT * FROM actions WHERE slate IS NULL AND type IN ({types})) e
        ASOF JOIN shown s ON e.unit = s.unit AND e.item = s.item AND e.time >= s.time
        WHERE e.time - s.time <= {windows.credit_us}) GROUP BY ALL"""
    )


def _create_daily(database: duckdb.DuckDBPyConnection, types: int) -> None:
    """Counts by unit and day of the calendar (UTC)."""
    of_types = "".join(f", count(*) FILTER (type = {t}) AS type_{t}" for t in range(types))
    none = "".join(f", 0 AS type_{t}" for t in range(types))
    sums = "".join(f", sum(type_{t})::BIGINT AS type_{t}" for t in range(types))
    database.execute(
        f"""CREATE TABLE daily AS SELECT unit, day, sum(slates)::BIGINT AS slates, sum(shown)::BIGINT AS shown,
        sum(clicks)::BIGINT AS clicks{sums} FROM (
        SELECT unit, time // {DAY_US} AS day, count(*) AS slates, sum(items) AS shown, 0 AS clicks{none}
        FROM slates GROUP BY ALL
        UNION ALL SELECT unit, time // {DAY_US} AS day, 0, 0, count(*){none} FROM clicked GROUP BY ALL
        UNION ALL SELECT unit, time // {DAY_US} AS day, 0, 0, 0{of_types} FROM actions GROUP BY ALL)
        GROUP BY unit, day"""
    )


def _create_constants(database: duckdb.DuckDBPyConnection, types: int, windows: OutcomeWindows) -> None:
    """What does not depend on the time of a look: before, conversion within its window, the days of retention."""
    before = "".join(f", count(*) FILTER (e.type = {t}) AS before_{t}" for t in range(types))
    converted = "".join(
        f", coalesce(bool_or(type = {t} AND since < {windows.conversion_us}), FALSE) AS converted_{t}"
        for t in range(types)
    )
    active = ", ".join(
        f"coalesce(bool_or(since >= {day * DAY_US} AND since < {(day + 1) * DAY_US}), FALSE) AS active_{day}"
        for day in (1, 7)
    )
    zeros = "".join(f", coalesce(before_{t}, 0) AS before_{t}" for t in range(types))
    database.execute(
        f"""CREATE TABLE constants AS
        WITH earlier AS (SELECT u.unit{before} FROM units u JOIN people_events e ON e.person = u.person
            AND e.time < u.first AND e.time >= u.first - {windows.before_us} GROUP BY u.unit),
        visits AS (SELECT unit, type, time - first AS since FROM actions JOIN units USING (unit)
            UNION ALL SELECT unit, NULL, slates.time - first FROM slates JOIN units USING (unit)),
        later AS (SELECT unit, {active}{converted} FROM visits GROUP BY unit),
        hours AS (SELECT unit, max(slates) AS busiest_hour FROM (
            SELECT unit, count(*) AS slates FROM slates GROUP BY unit, time // {HOUR_US}) GROUP BY unit),
        days AS (SELECT unit, count(*) AS first_day_slates FROM slates JOIN units USING (unit)
            WHERE slates.time < first + {DAY_US} GROUP BY unit)
        SELECT unit, later.* EXCLUDE (unit), busiest_hour, first_day_slates{zeros}
        FROM units JOIN later USING (unit) JOIN hours USING (unit) JOIN days USING (unit)
        LEFT JOIN earlier USING (unit)"""
    )
