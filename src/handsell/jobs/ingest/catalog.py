"""The catalog step of the data job: vocabularies, and the items and users in the order of their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.paths import Layout, has_content
from handsell.data.alignment import align_rows, find_present, mark_unavailable
from handsell.data.numbering import extend_vocabulary, name_erased_user
from handsell.data.readers.base import Reader
from handsell.events.store.rows import hash_person
from handsell.jobs.ingest.catalog_changes import CatalogChanges
from handsell.jobs.ingest.person_rules import PersonRules

USED = "used_items.npy"  # which items have events, in the data folder


@dataclass(frozen=True, slots=True)
class CatalogCounts:
    items: int
    users: int
    deleted: int  # items with events that count as deleted


def load_vocabularies(layout: Layout) -> dict[str, Vocabulary]:
    """Load the vocabularies of the last run; none if a file is empty, as a crash may leave it."""
    if not has_content(layout.catalog):
        return {}
    names = ("items", "users", "creators", "tags")
    return {n: Vocabulary.load(layout.catalog / n) for n in names if (layout.catalog / n / "ids.arrow").is_file()}


def forget_people(users: Vocabulary, people: set[str]) -> Vocabulary:
    """Replace the ids of erased people, given as SHA-256; the numbers of the others stay."""
    if not people:
        return users
    ids = users.ids(np.arange(len(users)))
    return Vocabulary.of(name_erased_user(n) if hash_person(id) in people else id for n, id in enumerate(ids))


def write_catalog(
    config: Config,
    reader: Reader,
    fresh: Layout,
    kept: dict[str, Vocabulary],
    changes: CatalogChanges,
    rules: PersonRules,
    used_before: np.ndarray,
) -> CatalogCounts:
    """Extend and save the vocabularies, write items and users in their order.

    `used_before`: which items (I,) bool have events that earlier runs have read.
    """
    source = reader.items()
    items = changes.apply(source, "item", "item_id")
    items = items.filter(pc.is_valid(items["item_id"]))
    users = changes.apply(rules.select_users(reader.users()), "user", "user_id")
    users = users.filter(pc.is_valid(users["user_id"]))
    seen = {name: list(_read_ids(fresh.state / "ids" / name)) for name in ("item_id", "user_id")}
    numbers = {
        "items": extend_vocabulary(kept.get("items"), [items["item_id"], *seen["item_id"]]),
        "users": extend_vocabulary(kept.get("users"), [users["user_id"], *seen["user_id"]]),
    }
    for name in ("creators", "tags"):
        lists = items[name].combine_chunks()
        numbers[name] = extend_vocabulary(kept.get(name), [pc.list_flatten(lists)])
    for name, vocabulary in numbers.items():
        vocabulary.save(fresh.catalog / name)
    used = np.zeros(len(numbers["items"]), bool)
    used[: len(used_before)] = used_before
    for ids in seen["item_id"]:
        used[numbers["items"].number(ids.to_pylist())] = True
    np.save(fresh.items.parent / USED, used)
    present = _find_present(config, source, changes, numbers["items"], used)
    pq.write_table(mark_unavailable(align_rows(items, "item_id", numbers["items"]), present), fresh.items)
    pq.write_table(align_rows(users, "user_id", numbers["users"]), fresh.users)
    return CatalogCounts(len(numbers["items"]), len(numbers["users"]), int(np.count_nonzero(used & ~present)))


def _find_present(
    config: Config, source: pa.Table, changes: CatalogChanges, items: Vocabulary, used: np.ndarray
) -> np.ndarray:
    """Return which items (I,) bool exist: those that the source still has, and what came over HTTP since."""
    listed = np.zeros(len(items), bool)
    listed[items.number(source["item_id"].drop_null().to_pylist())] = True
    present = find_present(listed, used, config.data.recommend_deleted_items)
    for deleted in (False, True):
        numbers = items.number(changes.list_ids("item", deleted))
        present[numbers[numbers >= 0]] = not deleted
    return present


def _read_ids(folder: Path) -> Iterator[pa.ChunkedArray]:
    for path in sorted(folder.glob("part-*.parquet")):
        yield pq.read_table(path)["id"]
