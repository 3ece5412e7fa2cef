"""The catalog step of the data job: vocabularies, and the items and users in the order of their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.paths import Layout, has_content
from handsell.data.alignment import align_rows, find_present, mark_unavailable
from handsell.data.numbering import extend_vocabulary
from handsell.data.readers.base import Reader


def load_vocabularies(layout: Layout) -> dict[str, Vocabulary]:
    """Load the vocabularies of the last run; none if a file is empty, as a crash may leave it."""
    if not has_content(layout.catalog):
        return {}
    names = ("items", "users", "creators", "tags")
    return {n: Vocabulary.load(layout.catalog / n) for n in names if (layout.catalog / n / "ids.arrow").is_file()}


def write_catalog(config: Config, reader: Reader, fresh: Layout, kept: dict[str, Vocabulary]) -> tuple[int, int, int]:
    """Extend and save the vocabularies, write items and users in their order.

    Returns the number of items, of users, and of items with events that count as deleted.
    """
    tables, counts, deleted = {"items": reader.items(), "users": reader.users()}, {}, 0
    for name, key, path in (("items", "item_id", fresh.items), ("users", "user_id", fresh.users)):
        known = tables[name].filter(pc.is_valid(tables[name][key]))
        seen = fresh.state / "ids" / key
        vocabulary = extend_vocabulary(kept.get(name), (ids for ids in [known[key], *_read_ids(seen)]))
        vocabulary.save(fresh.catalog / name)
        counts[name] = len(vocabulary)
        table = align_rows(known, key, vocabulary)
        if name == "items":
            listed, used = np.zeros((2, len(vocabulary)), bool)
            listed[vocabulary.number(known[key].to_pylist())] = True
            for ids in _read_ids(seen):
                used[vocabulary.number(ids.to_pylist())] = True
            present = find_present(listed, used, config.data.recommend_deleted_items)
            deleted = int(np.count_nonzero(used & ~present))
            table = mark_unavailable(table, present)
        pq.write_table(table, path)
    for name in ("creators", "tags"):
        lists = tables["items"][name].combine_chunks()
        extend_vocabulary(kept.get(name), [pc.list_flatten(lists)]).save(fresh.catalog / name)
    return counts["items"], counts["users"], deleted


def _read_ids(folder: Path) -> Iterator[pa.ChunkedArray]:
    for path in sorted(folder.glob("part-*.parquet")):
        yield pq.read_table(path)["id"]
