"""Checks of ids: their length, and whether the tables use the same ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.data.readers.base import Reader
from handsell.data.readers.tables import Tables
from handsell.data.schemas import ID_CHARACTERS
from handsell.doctor.doctor_report import EXAMPLES, Finding

FEW_SHARED = 0.05  # of the distinct ids of the smaller table: below, the tables do not use the same ids
LIKELY = 0.5  # share of ids that a correction must make equal to be named as the cause
SHOWN_CHARACTERS = 60

Normalize = Callable[[pa.Array], pa.Array]
CAUSES: dict[str, Normalize] = {
    "one table has spaces around its ids: remove them": pc.utf8_trim_whitespace,
    "the ids differ in upper and lower case: write them alike": pc.utf8_lower,
    "one table has whole numbers as decimals, as pandas writes a column with a missing value: write integers": (
        lambda ids: pc.replace_substring_regex(ids, r"^(\w*\d)\.0+$", r"\1")
    ),
    "one table has leading zeros, the other has lost them: write the ids as text": (
        lambda ids: pc.replace_substring_regex(ids, r"^0+(\d)", r"\1")
    ),
}
SIGNS: dict[str, Normalize] = {  # causes that are named only where almost no id is shared
    "the ids differ in signs such as dashes, braces, quotes or thousands separators: write them alike": (
        lambda ids: pc.replace_substring_regex(pc.utf8_normalize(ids, form="NFKC"), r"[^\pL\pN\pM]", "")
    ),
    "one table has a text before the number, or ids of different kinds: write them alike, or map the same kind of id": (
        lambda ids: pc.replace_substring_regex(ids, r"^\D+(\d+)$", r"\1")
    ),
}


def shorten(value: object) -> str:
    """Return the text of a value for an example; long text is cut."""
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"


def show_row(table: pa.Table | pa.RecordBatch, row: int, names: Sequence[str]) -> dict[str, str]:
    """Return the values of a row for an example, without nulls; times that Python cannot hold are microseconds."""
    return {name: shorten(value) for name in names if (value := _read_cell(table[name], row)) is not None}


def _read_cell(column: pa.Array | pa.ChunkedArray, row: int) -> object:
    cell = column[row]
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        return f"{cell.cast(pa.int64()).as_py()} µs"


def mark_long_ids(ids: pa.Array) -> np.ndarray:
    """Mark the ids (N,) bool with more characters than the API accepts."""
    return np.asarray(pc.fill_null(pc.greater(pc.utf8_length(ids), ID_CHARACTERS), False))


def mark_control_characters(ids: pa.Array) -> np.ndarray:
    """Mark the ids (N,) bool that contain a control character, which the API rejects."""
    return np.asarray(pc.fill_null(pc.match_substring_regex(ids, r"[\x00-\x1f\x7f]"), False))


@dataclass(frozen=True)
class IdRule:
    """Ids that the API rejects."""

    name: str
    what: str  # that the rejected ids have
    mark: Callable[[pa.Array], np.ndarray]

    def build_finding(self, column: str, rows: str, count: int = 0, examples: list[dict] | None = None) -> Finding:
        message = f"{rows} whose {column} has {self.what}: correct the ids, or remove the rows"
        where = f" in {rows.split()[-2]}" if rows.endswith("table") else ""
        return Finding(f"{self.name} {column}{where}", "error", message, count, examples or [])


ID_RULES = (
    IdRule("long", f"more than {ID_CHARACTERS} characters", mark_long_ids),
    IdRule("unprintable", "control characters, such as line breaks", mark_control_characters),
)


def find_table_problems(reader: Reader, tables: dict[str, pa.Array], seen: dict[str, pa.Array]) -> Iterator[Finding]:
    """Find skipped files, and ids of the items and users tables that the API rejects or that match no event.

    `tables`: ids of the rows of the table `items` and `users`; `seen`: distinct ids of the events.
    """
    if isinstance(reader, Tables) and (skipped := reader.skipped_files()):
        message = "files in the folders of the tables that are not read: rename them, or ignore this"
        examples = [{"file": str(path), "reason": reason} for path, reason in skipped[:EXAMPLES]]
        yield Finding("skipped files", "note", message, len(skipped), examples)
    if isinstance(reader, Tables) and (guessed := reader.guessed_encodings()):
        message = (
            "files that are not UTF-8 are read as Windows-1252: set csv.encoding of the table if letters are wrong"
        )
        examples = [{"file": str(path), "for example": word} for path, word in guessed[:EXAMPLES]]
        yield Finding("guessed encoding", "note", message, len(guessed), examples)
    for table, ids in tables.items():
        column = f"{table.removesuffix('s')}_id"
        for rule in ID_RULES:
            bad = np.flatnonzero(rule.mark(ids))
            if len(bad):
                examples = [{"row": r + 1, column: shorten(ids[r].as_py())} for r in bad[:EXAMPLES].tolist()]
                invalid = rule.build_finding(column, f"rows of the {table} table", len(bad), examples)
                invalid.table = table
                yield invalid
        if finding := _find_mismatch(column, table, pc.unique(ids.drop_null()), seen[table]):
            yield finding


def _find_mismatch(column: str, table: str, described: pa.Array, seen: pa.Array) -> Finding | None:
    smaller = min(len(described), len(seen))
    if not smaller:
        return None
    if _count_shared(seen, described) >= FEW_SHARED * smaller:
        all_seen, seen = len(seen), seen.filter(pc.invert(pc.is_in(seen, described)))
        smaller = len(seen)
        if smaller < max(FEW_SHARED * all_seen, 1):
            return None
        cause, normalize = _find_cause(described, seen, CAUSES)
        if normalize is None:
            return None
        share = f"{smaller:,} of {all_seen:,} {column}s of the events are not"
    else:
        cause, normalize = _find_cause(described, seen, CAUSES | SIGNS)
        share = f"almost no {column} of the events is"
    message = (
        f"{share} in the {table} table: {cause}. Events have {_show(seen)}; the {table} table has {_show(described)}"
    )
    examples = []
    if normalize:
        place = pc.index_in(normalize(seen), normalize(described))
        for row in np.flatnonzero(np.asarray(pc.is_valid(place)))[:EXAMPLES].tolist():
            own, other = seen[row].as_py(), described[place[row].as_py()].as_py()
            examples.append({"events": repr(shorten(own)), table: repr(shorten(other))})
    return Finding(f"different {column}", "error", message, smaller, examples)


def _find_cause(described: pa.Array, seen: pa.Array, causes: dict[str, Normalize]) -> tuple[str, Normalize | None]:
    smaller = min(len(described), len(seen))
    for cause, normalize in causes.items():
        if _count_shared(normalize(seen), normalize(described)) >= LIKELY * smaller:
            return cause, normalize
    if _count_shared(_normalize_fully(seen), _normalize_fully(described)) >= LIKELY * smaller:
        return (
            "the ids differ in spaces, case, decimals or leading zeros: write them alike",
            _normalize_fully,
        )
    return "probably the columns contain ids of different kinds: map both to the same kind of id", None


def _normalize_fully(ids: pa.Array) -> pa.Array:
    for normalize in CAUSES.values():
        ids = normalize(ids)
    return ids


def _count_shared(left: pa.Array, right: pa.Array) -> int:
    return pc.sum(pc.is_in(pc.unique(left), pc.unique(right))).as_py() or 0


def _show(ids: pa.Array) -> str:
    return ", ".join(repr(shorten(value)) for value in ids.slice(0, EXAMPLES).to_pylist())
