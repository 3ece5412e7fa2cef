"""The lists of users' states, read by kernels from the bytes of the online store: no text and no number of Python.

`rows.read_states` reads decoded rows and is the reference: tests require equal states. It also reads rows that are not
as they were written: histories out of order, seen items that do not ascend, ids that are there twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from handsell.catalog.vocabulary import Numbering, Vocabulary
from handsell.core.batches import History, Ragged, Seen
from handsell.core.kernels import compiled
from handsell.events.states import Affinities, FoldRules
from handsell.features.storage.encoded_rows import EncodedRows

TEXTS, INTEGERS, FLOATS = "string_list_val", "int64_list_val", "float_list_val"
HISTORY = {
    "history_item_ids": TEXTS, "history_types": TEXTS, "history_times_us": INTEGERS, "history_weights": FLOATS,
}  # fmt: skip
SEEN = {"seen_item_ids": TEXTS, "seen_times_us": INTEGERS}
CONFIGS = 16  # whose event types are kept

Cells = list[list[bytes | None]]
Texts = tuple[np.ndarray, ...]


def read_encoded_history(rows: EncodedRows, items: Numbering, types: Sequence[str], rules: FoldRules) -> History | None:
    """Return the histories (B, T) of the known items; None where the kernel cannot read them."""
    cells, texts, names = _find_columns(rows, HISTORY), _find_texts(items), _find_texts(_number_names(tuple(types)))
    if cells is None or texts is None or names is None:
        return None
    shape = (len(cells[0]), rules.history_length)
    past = History(
        np.empty(shape, np.int32), np.empty(shape, np.int8), np.empty(shape, np.int64), np.empty(shape, np.float32)
    )
    done = compiled.read_histories(*cells, *texts, *names, past.item, past.type, past.time, past.weight)
    return past if done else None


def read_encoded_seen(rows: EncodedRows, items: Numbering) -> Seen | None:
    """Return the known items that each user has seen; None where the kernel cannot read them."""
    cells, texts = _find_columns(rows, SEEN), _find_texts(items)
    if cells is None or texts is None:
        return None
    most, offsets = _count_most(cells[0]), np.empty(len(cells[0]) + 1, np.int64)
    item, time = np.empty(most, np.int32), np.empty(most, np.int64)
    if not compiled.read_seen(*cells, *texts, item, time, offsets):
        return None
    n = int(offsets[-1])
    return Seen(Ragged(item[:n], offsets), Ragged(time[:n], offsets))


def read_encoded_affinities(rows: EncodedRows, kind: str, vocabulary: Numbering) -> Affinities | None:
    """Return the weights of the known creators or tags; None where the kernel cannot read them."""
    columns = {f"top_{kind}s": TEXTS, f"top_{kind}_weights": FLOATS}
    cells, texts = _find_columns(rows, columns), _find_texts(vocabulary)
    if cells is None or texts is None:
        return None
    most, offsets = _count_most(cells[0]), np.empty(len(cells[0]) + 1, np.int64)
    key, weight = np.empty(most, np.int32), np.empty(most)
    if not compiled.read_weights(*cells, *texts, key, weight, offsets):
        return None
    n = int(offsets[-1])
    return Affinities(Ragged(key[:n], offsets), Ragged(weight[:n], offsets))


def _find_columns(rows: EncodedRows, fields: dict[str, str]) -> Cells | None:
    """Return the cells of columns; None where one is not of its field."""
    found = [rows.find_cells(name, field) for name, field in fields.items()]
    return None if compiled is None or None in found else found  # type: ignore[return-value]


def _find_texts(vocabulary: Numbering) -> Texts | None:
    return vocabulary.find_arrays() if isinstance(vocabulary, Vocabulary) else None


@lru_cache(CONFIGS)
def _number_names(names: tuple[str, ...]) -> Vocabulary:
    return Vocabulary.of(names)


def _count_most(cells: Sequence[bytes | None]) -> int:
    """Return the most texts that there can be: each takes two bytes."""
    return sum(len(cell) for cell in cells if cell) // 2
