"""Logged slates with propensities and outcomes: served slates of the event store, or impressions of the source tables.

Served slates are read from the compacted files and then from the store; impressions of source tables, which need a
position, a propensity and a recommendation id, from the numbered log. The outcome of an item is an event on it with the
slate's recommendation id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE, RowBatch
from handsell.core.errors import DataError
from handsell.core.hashing import hash_column
from handsell.core.json_files import read_json
from handsell.core.paths import Layout
from handsell.data.interaction_parts import list_parts, read_part
from handsell.data.numbering import look_up
from handsell.data.schemas import TIME
from handsell.events.compacted_files import list_ranges, read_position
from handsell.events.store.interface import EventReader
from handsell.experiments.off_policy.estimators import SlateRewards

Origin = Literal["served", "tables"]
PAGE = 2_000  # slates, or events, read from the store at a time
SHOWN = pa.schema(
    [
        pa.field("recommendation_id", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("time", pa.int64()),
        pa.field("surface", pa.string()),
        pa.field("bundle", pa.string()),
        pa.field("position", pa.int16()),
        pa.field("item", pa.int32()),
        pa.field("propensity", pa.float64()),
        pa.field("interleaved", pa.bool_()),
    ]
)

OUTCOMES = pa.schema([pa.field("recommendation_id", pa.string()), pa.field("item", pa.int32())])


@dataclass(frozen=True, slots=True)
class LoggedSlates(RowBatch):
    """N slates of at most n items, oldest first; item numbers are those of the catalog."""

    recommendation_id: np.ndarray  # (N,) object
    user_id: np.ndarray  # (N,) object, None for a visitor without an id
    time: np.ndarray  # (N,) int64 µs
    surface: np.ndarray  # (N,) int8, index into Config.surface_names; -1 for none of them
    bundle: np.ndarray  # (N,) object, id of the bundle that made the slate; "" if it is not known
    item: np.ndarray  # (N, n) int32, -1 where nothing was shown, or an item without a number
    propensity: np.ndarray  # (N, n) float64, NaN where nothing was shown
    reward: np.ndarray  # (N, n) float64, 1 where an event followed
    interleaved: np.ndarray  # (N,) bool, drafted from the slates of two arms: no single policy has its propensities

    def __len__(self) -> int:
        return len(self.time)

    @property
    def rewards(self) -> SlateRewards:
        return SlateRewards(self.reward, self.propensity, self.user)

    @property
    def user(self) -> np.ndarray:
        """(N,) int32 numbers of the distinct users within these slates; -1 without an id."""
        coded = pa.array(self.user_id, pa.string()).dictionary_encode().indices
        return pc.fill_null(coded, NONE).to_numpy().astype(np.int32)

    def sample(self, most: int) -> LoggedSlates:
        """Return at most `most` slates, chosen by a hash of their ids, in their order."""
        order = np.argsort(hash_column(pa.array(self.recommendation_id, pa.string())), kind="stable")
        return self.take(np.sort(order[:most]))


def read_slates(
    config: Config, reader: EventReader, origin: Origin, metrics: Collection[str], surface: str = "home"
) -> LoggedSlates:
    """Read all slates of a surface and what followed from them, events of the types `metrics`."""
    users, items = (Vocabulary.load(Layout(config.state).catalog / name) for name in ("users", "items"))
    if origin == "served":
        parts = [*_read_compacted(config, items, surface), *_read_store(config, reader, items, surface)]
    else:
        parts = list(_read_tables(config, users, surface))
    shown = pa.concat_tables([SHOWN.empty_table(), *parts]).combine_chunks()
    outcomes = pa.concat_tables([*_read_outcomes(config, metrics), _read_new_outcomes(config, reader, items, metrics)])
    return build_slates(shown, outcomes, config)


def build_slates(shown: pa.Table, outcomes: pa.Table, config: Config) -> LoggedSlates:
    """Build slates from rows of SHOWN and from outcomes (recommendation_id, item); repeated positions count once."""
    coded = shown["recommendation_id"].combine_chunks().dictionary_encode()
    code = coded.indices.to_numpy().astype(np.int64)
    position = shown["position"].to_numpy().astype(np.int64) - 1
    width = int(position.max(initial=-1)) + 1
    _, first = np.unique(code * max(width, 1) + position, return_index=True)
    shown, code, position = shown.take(pa.array(first)), code[first], position[first]
    n = len(coded.dictionary)
    one = np.unique(code, return_index=True)[1]  # a row of each slate
    item, propensity = np.full((n, width), NONE, np.int32), np.full((n, width), np.nan)
    item[code, position], propensity[code, position] = shown["item"].to_numpy(), shown["propensity"].to_numpy()
    reward = np.zeros((n, width))
    slate = pc.index_in(outcomes["recommendation_id"].combine_chunks(), coded.dictionary)
    known = pc.is_valid(slate)
    at, what = slate.filter(known).to_numpy(), outcomes["item"].filter(known).to_numpy()
    row, column = np.nonzero((item[at] == what[:, None]) & (what != NONE)[:, None])
    reward[at[row], column] = 1.0
    head = shown.take(pa.array(one))
    surface = pc.fill_null(pc.index_in(head["surface"], pa.array(config.surface_names)), NONE)
    slates = LoggedSlates(
        recommendation_id=np.array(coded.dictionary.to_pylist(), object),
        user_id=np.array(head["user_id"].to_pylist(), object),
        time=head["time"].to_numpy(),
        surface=surface.to_numpy().astype(np.int8),
        bundle=np.array(pc.fill_null(head["bundle"], "").to_pylist(), object),
        item=item,
        propensity=propensity,
        reward=reward,
        interleaved=head["interleaved"].to_numpy(zero_copy_only=False),
    )
    return slates.take(np.argsort(slates.time, kind="stable"))


def require_metrics(config: Config, metrics: Collection[str]) -> tuple[str, ...]:
    """Return the event types that count, by default those of positive weight; raises DataError for an unknown one."""
    if not metrics:
        return tuple(name for name, kind in config.events.types.items() if kind.weight > 0)
    if unknown := [name for name in metrics if name not in config.events.types]:
        raise DataError(
            f"metric: expected event types of this config ({', '.join(config.events.names)}), got {', '.join(unknown)}"
        )
    return tuple(metrics)


def _read_compacted(config: Config, items: Vocabulary, surface: str) -> Iterator[pa.Table]:
    folder = Layout(config.state).compacted
    for one in list_ranges(folder, "impressions"):
        for file in one.files:
            rows = pq.read_table(folder / file.path, filters=pc.field("surface") == surface)
            yield _number_shown(rows, items)


def _read_store(config: Config, reader: EventReader, items: Vocabulary, surface: str) -> Iterator[pa.Table]:
    """Yield the slates that have not been compacted."""
    offset = read_position(Layout(config.state).compacted, "impressions")
    while (page := reader.read_impressions(offset, PAGE))["offset"]:
        offset = page["offset"][-1]
        rows = pa.table({name: page[name] for name in (*SHOWN.names[:-3], "item_id", "propensity")})
        rows = rows.append_column("interleaved", pa.array(page["interleaved"], pa.string()))
        rows = rows.set_column(rows.column_names.index("time"), "time", rows["time"].cast(TIME))
        yield _number_shown(rows.filter(pc.equal(rows["surface"], surface)), items)


def _number_shown(rows: pa.Table, items: Vocabulary) -> pa.Table:
    drafted = pc.is_valid(rows["interleaved"]) if "interleaved" in rows.column_names else pa.repeat(False, len(rows))
    columns = {
        "interleaved": drafted,
        "item": look_up(rows["item_id"].combine_chunks().cast(pa.string()), items),
        "time": rows["time"].cast(pa.int64()),
    }
    return pa.table([columns[f.name] if f.name in columns else rows[f.name].cast(f.type) for f in SHOWN], schema=SHOWN)


def _read_tables(config: Config, users: Vocabulary, surface: str) -> Iterator[pa.Table]:
    """Yield the impressions of the source tables that have a position, a propensity and a recommendation id."""
    seen = np.array([config.events.types[name].seen for name in config.events.names])
    columns = ("user", "item", "type", "time", "position", "propensity", "surface", "recommendation_id")
    for part in list_parts(Layout(config.state).interactions):
        rows = read_part(part, columns)
        known = pc.and_(pc.is_valid(rows["recommendation_id"]), pc.greater(pc.fill_null(rows["propensity"], 0.0), 0.0))
        known = pc.and_(known, pc.greater(pc.fill_null(rows["position"], 0), 0))
        known = pc.and_(known, pa.array(~seen[rows["type"].to_numpy()]))
        rows = rows.filter(pc.and_(known, pc.equal(pc.fill_null(rows["surface"], surface), surface)))
        rows = rows.append_column("bundle", pa.nulls(len(rows), pa.string()))
        rows = rows.append_column("interleaved", pa.repeat(False, len(rows)))
        rows = rows.append_column("user_id", pa.array(users.ids(rows["user"].to_numpy()), pa.string()))
        yield rows.select(SHOWN.names).cast(SHOWN)


def _read_outcomes(config: Config, metrics: Collection[str]) -> Iterator[pa.Table]:
    """Yield rows of OUTCOMES from the numbered log, which holds the source tables and most of the store."""
    codes = [config.events.names.index(name) for name in metrics]
    for part in list_parts(Layout(config.state).interactions):
        rows = read_part(part, ("type", "item", "recommendation_id"))
        kept = np.isin(rows["type"].to_numpy(), codes)
        rows = rows.filter(pc.and_(pa.array(kept), pc.is_valid(rows["recommendation_id"])))
        yield rows.select(OUTCOMES.names).cast(OUTCOMES)


def _read_new_outcomes(config: Config, reader: EventReader, items: Vocabulary, metrics: Collection[str]) -> pa.Table:
    """Return the same of the events that the numbered log does not include yet."""
    ids: list[str] = []
    names: list[str] = []
    offset = read_events_through(config)
    while (page := reader.scan(offset, PAGE))["offset"]:
        offset = page["offset"][-1]
        for kind, recommendation, item in zip(page["type"], page["recommendation_id"], page["item_id"], strict=True):
            if kind in metrics and recommendation is not None:
                ids.append(recommendation)
                names.append(item)
    return pa.table([pa.array(ids, pa.string()), look_up(pa.array(names, pa.string()), items)], schema=OUTCOMES)


def read_events_through(config: Config) -> int:
    """Return the offset through which the numbered log includes the event store."""
    meta = read_json(Layout(config.state).data_meta, f"run `handsell data {config.source}` again")
    return int(meta.get("events_through", 0))
