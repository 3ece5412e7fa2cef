"""Remove people from the numbered data: their interactions, the keys of their events, and their ids in the catalog.

Numbers are permanent, so an erased person's number stays and its id becomes `(erased user N)`, as in the data step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import NONE
from handsell.core.errors import DataError
from handsell.core.paths import Layout
from handsell.data.numbering import name_erased_user
from handsell.jobs.erasure.files import DRAFT, remove_from_file, replace_file
from handsell.jobs.erasure.person import Person
from handsell.jobs.ingest.publication import finish_publication

LOCK_WAIT_S = 600.0


def remove_numbered(layout: Layout, person: Person) -> int:
    """Remove people from the folders of the data step; return the number of rows. The ids come last, for a resumed run.

    Raises DataError if a data job keeps running.
    """
    layout.state.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(layout.state / ".data.lock", mode=0o600).acquire(timeout=LOCK_WAIT_S):
            finish_publication(layout)
            return _remove(layout, person)
    except Timeout:
        raise DataError(f"a data job of {layout.state} is running: wait for its end, then erase again") from None


def _remove(layout: Layout, person: Person) -> int:
    users = layout.catalog / "users"
    if not (users / "ids.arrow").is_file():
        return 0
    vocabulary = Vocabulary.load(users)
    numbers = vocabulary.number(person.ids)
    numbers = numbers[numbers != NONE]
    removed = sum(
        remove_from_file(path, person)
        for path in sorted(layout.items.parent.rglob("*.parquet"))
        if path not in (layout.items, layout.users)
    )
    if not len(numbers):
        return removed
    parts = sorted(layout.interactions.rglob("*.parquet"))
    keys = [_read_keys(path, numbers) for path in parts]
    _remove_keys(layout.event_keys, np.unique(np.concatenate([np.zeros(0, np.int64), *keys])))
    removed += sum(_remove_rows(path, numbers) for path in parts)
    if layout.users.is_file():
        _rewrite(layout.users, lambda table, first: _blank(table, numbers - first))
    _rename(users / "ids.arrow", numbers)
    return removed + len(numbers)


def _read_keys(path: Path, numbers: np.ndarray) -> np.ndarray:
    """Return the keys, also the second ones, of the events of users."""
    names = [name for name in ("key", "alias") if name in pq.read_schema(path).names]
    rows = pq.read_table(path, columns=names, filters=[("user", "in", numbers.tolist())])
    return np.concatenate([np.zeros(0, np.int64), *(rows[name].drop_null().to_numpy() for name in names)])


def _remove_keys(folder: Path, keys: np.ndarray) -> None:
    for path in sorted(folder.glob("*.npy")):
        known = np.load(path)
        kept = known[~np.isin(known, keys)]
        if len(kept) < len(known):
            draft = path.with_name(path.name + DRAFT)
            with draft.open("wb") as file:
                np.save(file, kept)
            replace_file(draft, path)


def _remove_rows(path: Path, numbers: np.ndarray) -> int:
    """Remove the rows of users by number; return how many."""
    rows = pq.read_table(path, columns=["user"])["user"].to_numpy()
    count = int(np.count_nonzero(np.isin(rows, numbers)))
    if count:
        _rewrite(path, lambda table, _: table.filter(pa.array(~np.isin(table["user"].to_numpy(), numbers))))
    return count


def _blank(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Replace the ids in rows of the users table, and their attributes by null; `rows` may lie outside the table."""
    rows = rows[(rows >= 0) & (rows < len(table))]
    if not len(rows):
        return table
    gone = np.zeros(len(table), bool)
    gone[rows] = True
    cells = {name: table[name].to_pylist() for name in table.column_names}
    for row in rows.tolist():
        for name, column in cells.items():
            column[row] = name_erased_user(row) if name == "user_id" else None
    return pa.table([pa.array(cells[f.name], f.type) for f in table.schema], schema=table.schema)


def _rewrite(path: Path, change: Callable[[pa.Table, int], pa.Table]) -> None:
    """Change the row groups of a Parquet file, in a new file that replaces it."""
    draft, first = path.with_name(path.name + DRAFT), 0
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        with pq.ParquetWriter(draft, schema) as out:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                out.write_table(change(table, first).cast(schema))
                first += len(table)
    replace_file(draft, path)


def _rename(path: Path, numbers: np.ndarray) -> None:
    """Replace the ids of numbers in a vocabulary's texts; its hashes stay, which only find ids that are equal, too."""
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
        texts = batch.column(0).to_pylist()
    for number in numbers.tolist():
        texts[number] = name_erased_user(number)
    draft = path.with_name(path.name + DRAFT)
    with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as out:
        out.write_batch(pa.record_batch([pa.array(texts, batch.schema.field(0).type)], schema=batch.schema))
    replace_file(draft, path)
