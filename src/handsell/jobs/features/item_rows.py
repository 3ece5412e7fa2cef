"""Rows of the item and user profile views, and the columns of the item snapshot that are read from the item table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.catalog.snapshot import ALWAYS, NEVER
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE, Ragged
from handsell.core.errors import DataError
from handsell.core.offsets import offsets_from_counts
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.data.numbering import look_up
from handsell.events.states import ItemAttributes
from handsell.features.item import DailyValues, ItemDays, compute_item_rows, merge_days
from handsell.features.registry import find_features
from handsell.features.rows import Vocabularies, build_lists, build_view_table, decode_ids
from handsell.features.views import ATTRIBUTES, build_views
from handsell.jobs.features.user_rows import DAYS, FeatureWork


@dataclass(frozen=True)
class ItemTable:
    """The item table in catalog order: I items by number."""

    metadata: pa.Table  # I rows, null for items that the table lacks
    creator: np.ndarray  # (I,) int32
    tags: Ragged  # (I, *) int32
    published: np.ndarray  # (I,) int64 µs
    expires: np.ndarray  # (I,) int64 µs
    available: np.ndarray  # (I,) bool
    columns: np.ndarray  # (I, Fs) float32, features.item_columns

    @property
    def facts(self) -> ItemAttributes:
        return ItemAttributes(self.creator, self.tags)


def read_items(config: Config, names: Vocabularies) -> ItemTable:
    """Read the item table in catalog order; raises DataError if a feature column is missing or not numeric."""
    table = order_by_number(pq.read_table(Layout(config.state).items), "item_id", names.items)
    return build_item_table(table, names, config.features.item_columns)


def build_item_table(table: pa.Table, names: Vocabularies, feature_columns: tuple[str, ...] = ()) -> ItemTable:
    """Number creators, tags and times of a table in catalog order; raises DataError for a feature column."""
    creators, tags = (table[name].combine_chunks() for name in ("creators", "tags"))
    first = pc.list_element(
        pc.if_else(pc.greater(pc.list_value_length(creators), 0), creators, pa.scalar([None], creators.type)), 0
    )
    return ItemTable(
        metadata=table,
        creator=look_up_known(first, names.creators),
        tags=_tags(tags, names.tags),
        published=read_times(table["published_at"], ALWAYS),
        expires=read_times(table["expires_at"], NEVER),
        available=pc.fill_null(table["available"], True).to_numpy().astype(bool),
        columns=read_numbers(table, feature_columns, "features.item_columns"),
    )


def order_by_number(table: pa.Table, key: str, ids: Vocabulary) -> pa.Table:
    """Return one row per number of the vocabulary; null except for the key if the table has none."""
    table = table.combine_chunks()
    row = np.full(len(ids), -1, np.int64)
    number = look_up_known(table[key].combine_chunks(), ids)
    there = number != NONE
    row[number[there]] = np.flatnonzero(there)
    ordered = table.take(pa.array(row, mask=row < 0))
    every = pa.array(ids.ids(np.arange(len(ids))), pa.string())
    return ordered.set_column(ordered.column_names.index(key), pa.field(key, pa.string(), nullable=False), every)


def look_up_known(ids: pa.Array, vocabulary: Vocabulary) -> np.ndarray:
    """Return numbers (N,) int32, -1 for null and for unknown ids."""
    found = np.full(len(ids), NONE, np.int32)
    there = np.flatnonzero(ids.is_valid().to_numpy(zero_copy_only=False))
    if len(there):
        found[there] = look_up(ids.drop_null(), vocabulary)
    return found


def read_numbers(table: pa.Table, names: tuple[str, ...], setting: str) -> np.ndarray:
    """Return (N, len(names)) float32 of numeric or boolean columns, NaN for null."""
    out = np.empty((len(table), len(names)), np.float32)
    for f, name in enumerate(names):
        require_column(table, name, setting)
        try:
            out[:, f] = table[name].cast(pa.float32(), safe=False).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            kind = table[name].type
            raise DataError(f"{setting}: expected numbers in {name}, got {kind}: leave it out or convert it") from None
    return out


def read_attribute(table: pa.Table, name: str, kind: str) -> pa.Array:
    """Return a column (N,) cast to its kind in `features.user_attributes`; raises DataError if that fails."""
    require_column(table, name, "features.user_attributes")
    try:
        return table[name].combine_chunks().cast(ATTRIBUTES[kind])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        got = table[name].type
        raise DataError(f"features.user_attributes: expected {name} to hold {kind}; got {got}: correct it") from None


def require_column(table: pa.Table, name: str, setting: str) -> None:
    if name not in table.column_names:
        raise DataError(
            f"{setting} names {name}; the table has {', '.join(table.column_names)}: correct the name, or "
            "add the column to the data and run `handsell data CONFIG` again"
        )


def build_item_profile(items: ItemTable, names: Vocabularies, config: Config, from_us: int) -> pa.Table:
    """Return the rows of item_profile, one per item, valid from `from_us`."""
    ids = items.metadata["item_id"].combine_chunks()
    columns = {
        "item_id": ids,
        "item": ids,
        "item_number": np.arange(len(ids)),
        "creator": decode_ids(names.creators, items.creator),
        "tags": build_lists(decode_ids(names.tags, items.tags.values), items.tags.offsets),
        "published_us": pa.array(items.published, mask=items.published == ALWAYS),
        **{name: items.columns[:, f] for f, name in enumerate(config.features.item_columns)},
    }
    return build_view_table(build_views(config)["item_profile"], columns, np.full(len(ids), from_us))


def build_user_profile(config: Config, names: Vocabularies, from_us: int) -> pa.Table:
    """Return the rows of user_profile, one per user of the catalog, valid from `from_us`."""
    table = order_by_number(pq.read_table(Layout(config.state).users), "user_id", names.users)
    wanted = config.features.user_columns
    values = read_numbers(table, wanted, "features.user_columns")
    columns = {
        "user_id": table["user_id"].combine_chunks(),
        "user_number": np.arange(len(table)),
        **{name: values[:, f] for f, name in enumerate(wanted)},
        **{name: read_attribute(table, name, kind) for name, kind in config.features.user_attributes.items()},
    }
    return build_view_table(build_views(config)["user_profile"], columns, np.full(len(table), from_us))


def write_bucket(bucket: int, work: FeatureWork, as_of_us: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Merge one bucket's day counts from all parts and write its item_activity rows; a Ray task.

    Returns the number of rows, and the bucket's items with the values of their registered features as of `as_of_us`.
    """
    files = sorted((work.scratch / f"days-{bucket:05d}").glob("*.parquet"))
    table = pa.concat_tables([DAYS.empty_table(), *(pq.read_table(file) for file in files)])
    values = np.stack([table["positives"].to_numpy(), table["events"].to_numpy()], axis=1)
    rows = compute_item_rows(merge_days(ItemDays(table["item"].to_numpy(), table["day"].to_numpy(), values)))
    items = Vocabulary.load(Layout(work.config.state).catalog / "items")
    columns = {"item_id": decode_ids(items, rows.item)}
    columns |= {name: rows.values[:, f] for f, name in enumerate(find_features("item"))}
    view = build_views(work.config)["item_activity"]
    pq.write_table(
        build_view_table(view, columns, rows.day * DAY_US), work.out / view.name / f"bucket-{bucket:05d}.parquet"
    )
    touched = np.unique(rows.item)
    latest = DailyValues.of(rows, np.zeros((len(items), 0), np.float32))
    return len(rows), touched, latest.gather(touched[None], np.array([as_of_us]))[0]


def _tags(tags: pa.ListArray, vocabulary: Vocabulary) -> Ragged:
    """Return the distinct known tags of each item."""
    lengths = pc.fill_null(tags.value_lengths(), 0).to_numpy()
    number, row = look_up_known(tags.flatten(), vocabulary), np.repeat(np.arange(len(tags)), lengths)
    pairs = np.stack([row, number], axis=1)[number != NONE]
    _, first = np.unique(pairs, axis=0, return_index=True)
    row, number = pairs[np.sort(first)].T
    counts = np.bincount(row, minlength=len(tags))
    return Ragged(number.astype(np.int32), offsets_from_counts(counts))


def read_times(column: pa.ChunkedArray, unknown: int) -> np.ndarray:
    """Return times (N,) int64 µs, `unknown` for null."""
    values = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    return pc.fill_null(values, unknown).to_numpy()
