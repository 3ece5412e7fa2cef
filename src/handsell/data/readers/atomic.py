"""RecBole atomic files: NAME.inter, NAME.item, NAME.user; tab separated, headers typed `name:kind`.

Kinds: token, token_seq (separated by spaces), float, float_seq. With a rating column, events are of type "rating" with
that value, otherwise of type "click".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from handsell.core.errors import DataError
from handsell.data.readers import text_files
from handsell.data.readers.base import (
    SourcePart,
    build_event_batch,
    build_items_table,
    build_users_table,
    empty_users,
    read_all_events,
    seconds_to_time,
)
from handsell.data.readers.release_years import estimate_published_at

KINDS = {"token": pa.string(), "token_seq": pa.string(), "float": pa.float64(), "float_seq": pa.string()}
TITLES = ("title", "movie_title", "name", "item_name")
CREATORS = ("artist", "artists", "author", "authors", "brand", "creator", "creators", "director", "directors")
YEARS = ("release_year", "year")


@dataclass(frozen=True)
class Atomic:
    inter: Path
    ordered: ClassVar[bool] = True

    @property
    def source(self) -> str:
        return f"atomic:{self.inter}"

    def files(self) -> list[Path]:
        return [path for path in (self.inter, self._get_sibling("item"), self._get_sibling("user")) if path.exists()]

    def parts(self) -> list[SourcePart]:
        return [SourcePart(0, str(self.inter))]

    def events(self, part: SourcePart) -> Iterator[pa.RecordBatch]:
        path = Path(part.path)
        kinds = read_typed_header(path)
        _require(path, kinds, ("user_id", "item_id", "timestamp"))
        wanted = [name for name in ("user_id", "item_id", "timestamp", "rating") if name in kinds]
        kind = pa.scalar("rating" if "rating" in kinds else "click")
        for batch in _read_batches(path, kinds, wanted):
            columns = {"user_id": batch["user_id"], "item_id": batch["item_id"], "type": pa.repeat(kind, len(batch))}
            columns["time"] = seconds_to_time(batch["timestamp"])
            if "rating" in wanted:
                columns["value"] = pc.cast(batch["rating"], pa.float32())
            yield build_event_batch(columns)

    def items(self) -> pa.Table:
        path = self._get_sibling("item")
        if not path.exists():
            return build_items_table({"item_id": pa.array([], pa.string())})
        kinds = read_typed_header(path)
        _require(path, kinds, ("item_id",))
        rows = _read(path, kinds)
        columns = {
            _name_item_column(name, kinds[name]): array for name, array in rows.items() if kinds[name] != "token_seq"
        }
        columns |= _extract_text(rows, kinds)
        year = next((name for name in YEARS if name in columns), None)
        if year:
            columns["year"] = _to_year(columns.pop(year))
            columns["published_at"] = estimate_published_at(columns["item_id"], columns["year"], read_all_events(self))
        return build_items_table(columns)

    def users(self) -> pa.Table:
        path = self._get_sibling("user")
        if not path.exists():
            return empty_users()
        kinds = read_typed_header(path)
        _require(path, kinds, ("user_id",))
        rows = _read(path, kinds)
        return build_users_table({"user_id": rows.pop("user_id")} | {n: _to_number(a) for n, a in rows.items()})

    def _get_sibling(self, kind: str) -> Path:
        return self.inter.with_suffix(f".{kind}")


def read_typed_header(path: Path) -> dict[str, str]:
    """Return the kind of each column."""
    pairs = [cell.partition(":") for cell in text_files.read_header(path, "\t")]
    wrong = [name for name, _, kind in pairs if kind not in KINDS]
    if wrong:
        raise DataError(
            f"{path}: expected headers like name:token (kinds: {', '.join(KINDS)}); got {', '.join(wrong)} "
            "without a kind; correct the first line"
        )
    return {name: kind for name, _, kind in pairs}


def _read_batches(path: Path, kinds: dict[str, str], wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
    columns = {f"{name}:{kinds[name]}": KINDS[kinds[name]] for name in wanted}
    for batch in text_files.read_batches(path, columns, delimiter="\t", quotes=False):
        yield batch.rename_columns(list(wanted))


def _read(path: Path, kinds: dict[str, str]) -> dict[str, pa.Array]:
    table = pa.Table.from_batches(_read_batches(path, kinds, list(kinds))).combine_chunks()
    return {name: table[name].combine_chunks() for name in table.column_names}


def _require(path: Path, kinds: dict[str, str], names: tuple[str, ...]) -> None:
    text_files.require_columns(path, tuple(kinds), {name: pa.string() for name in names})


def _name_item_column(name: str, kind: str) -> str:
    return "title" if name in TITLES and kind.startswith("token") else name


def _extract_text(rows: dict[str, pa.Array], kinds: dict[str, str]) -> dict[str, pa.Array]:
    """Extract titles, creators and tags."""
    found: dict[str, list[pa.Array]] = {"creators": [], "tags": []}
    columns = {}
    for name, array in rows.items():
        if name in TITLES:
            columns["title"] = array
        elif name in CREATORS:
            found["creators"].append(_split_words(array, kinds[name]))
        elif kinds[name] == "token_seq":
            found["tags"].append(_split_words(array, kinds[name]))
    return columns | {name: _concatenate_lists(lists) for name, lists in found.items() if lists}


def _split_words(array: pa.Array, kind: str) -> pa.Array:
    text = pc.utf8_trim_whitespace(pc.fill_null(array, ""))
    lists = pc.utf8_split_whitespace(text) if kind == "token_seq" else pc.split_pattern(text, "\x00")
    return pa.array([[word for word in row if word] for row in lists.to_pylist()], pa.list_(pa.string()))


def _concatenate_lists(lists: list[pa.Array]) -> pa.Array:
    if len(lists) == 1:
        return lists[0]
    rows = zip(*(a.to_pylist() for a in lists), strict=True)
    return pa.array([[word for part in row for word in part] for row in rows], pa.list_(pa.string()))


def _to_year(array: pa.Array) -> pa.Array:
    if pa.types.is_floating(array.type):
        return pc.cast(array, pa.int32(), safe=False)
    return pc.cast(pc.if_else(pc.match_substring_regex(array, r"^\d{4}$"), array, None), pa.int32())


def _to_number(array: pa.Array) -> pa.Array:
    """Convert to int32 if all tokens are whole numbers, such as ages."""
    if pa.types.is_string(array.type) and pc.all(pc.match_substring_regex(array, r"^-?[1-9]?\d{0,8}$")).as_py():
        return pc.cast(array, pa.int32())
    return array
