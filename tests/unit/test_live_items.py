"""Live catalog changes on a snapshot: the same as a snapshot built from the changed table."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from handsell.catalog.live_items import LiveItems
from handsell.catalog.live_snapshot import LiveSnapshot
from handsell.catalog.snapshot import SLICED, Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE, Ragged, UserExclusions
from handsell.core.units import DAY_US
from handsell.data.schemas import ITEMS
from handsell.eligibility.filter_reasons import count_removed, find_removals
from handsell.eligibility.filters import get_filters
from handsell.eligibility.mask import Eligibility, select_by_creator, select_by_tag
from handsell.features.rows import Vocabularies
from handsell.jobs.features.item_rows import build_item_table
from handsell.testing.small_catalog import NOW, draw_requests

SCHEMA = ITEMS.append(pa.field("price", pa.float64())).append(pa.field("shelf", pa.dictionary(pa.int32(), pa.string())))
UNTOUCHED = np.array([0.0, np.nan, np.nan], np.float32)
NAMES = ("item_positives_total", "item_rate", "item_price")


@dataclass(frozen=True)
class Change:
    id: str
    action: str
    fields: dict[str, Any] = field(default_factory=dict)


def draw_fields(rng, names) -> dict[str, Any]:
    def maybe(value):
        return None if rng.random() < 0.15 else value

    every = {
        "title": lambda: maybe(f"Title {rng.integers(9)}"),
        "creators": lambda: maybe([f"c{c}" for c in rng.integers(0, 12, rng.integers(0, 3))]),
        "tags": lambda: maybe([f"t{t}" for t in rng.integers(0, 14, rng.integers(0, 4))]),
        "text": lambda: maybe("words"),
        "published_at": lambda: maybe(int(NOW + rng.integers(-5, 3) * DAY_US)),
        "expires_at": lambda: maybe(int(NOW + rng.integers(-2, 9) * DAY_US)),
        "available": lambda: maybe(bool(rng.random() < 0.7)),
        "price": lambda: maybe(float(rng.integers(1, 9))),
        "shelf": lambda: maybe(f"s{rng.integers(4)}"),
    }
    return {name: every[name]() for name in names}


def draw_changes(rng, count: int, known: int) -> list[Change]:
    found = []
    for _ in range(count):
        action, one = rng.choice(["put", "patch", "delete"], p=[0.4, 0.45, 0.15]), f"i{rng.integers(0, known + 12)}"
        names = [f.name for f in SCHEMA][1:]
        if action == "patch":
            names = list(rng.choice(names, rng.integers(1, 4), replace=False))
        found.append(Change(one, str(action), {} if action == "delete" else draw_fields(rng, names)))
    return found


def apply_to_rows(rows: dict[str, dict], changes, deleted: set[str]) -> None:
    """Apply changes to a table in the plainest way."""
    for change in changes:
        if change.action == "put":
            rows[change.id] = {f.name: None for f in SCHEMA} | change.fields | {"item_id": change.id}
            deleted.discard(change.id)
        elif change.id in rows:
            if change.action == "delete":
                deleted.add(change.id)
            else:
                rows[change.id] = {**rows[change.id], **change.fields}


def build_snapshot(rows: dict[str, dict], deleted=frozenset(), creators=(), tags=()) -> Snapshot:
    """Build a snapshot of a table as the features job does."""
    shown = [{**row, "available": False} if row["item_id"] in deleted else row for row in rows.values()]
    columns = [pa.array([row[f.name] for row in shown], f.type) for f in SCHEMA]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    ids = Vocabulary.of(rows)
    every = [
        Vocabulary.of([*first, *(t for row in rows.values() for t in row[name] or [])])
        for name, first in (("creators", creators), ("tags", tags))
    ]
    names = Vocabularies(ids, ids, *every)
    made = build_item_table(table, names, ("price",))
    values = np.tile(UNTOUCHED, (len(rows), 1))
    values[:, 2] = made.columns[:, 0]
    return Snapshot(
        1, NOW, ids, *every, made.creator, made.tags, made.published, made.expires, made.available, values, NAMES, table
    )


def draw_rows(rng, items: int) -> dict[str, dict]:
    names = [f.name for f in SCHEMA][1:]
    return {f"i{i}": {"item_id": f"i{i}"} | draw_fields(rng, names) for i in range(items)}


def split(rng, changes: list, parts: int) -> list[list]:
    ends = np.sort(rng.integers(0, len(changes) + 1, parts - 1)).tolist()
    return [changes[a:b] for a, b in zip([0, *ends], [*ends, len(changes)], strict=True)]


def assert_same(live: Snapshot, wanted: Snapshot) -> None:
    every = np.arange(len(wanted))
    assert live.items.ids(every) == wanted.items.ids(every)
    for name in ("published", "expires", "available"):
        assert np.array_equal(getattr(live, name), getattr(wanted, name)), name
    assert np.array_equal(live.values, wanted.values, equal_nan=True)
    texts = [[None if n == NONE else s.creators.ids(np.array([n]))[0] for n in s.creator] for s in (live, wanted)]
    assert texts[0] == texts[1]
    tags = [[s.tags.ids(s.item_tags.row(i)) for i in every] for s in (live, wanted)]
    assert tags[0] == tags[1]
    assert live.metadata.to_pylist() == wanted.metadata.to_pylist()
    some = every[:: max(1, len(every) // 30)]
    assert live.read_metadata(some).to_pylist() == wanted.read_metadata(some).to_pylist()


@pytest.mark.parametrize("seed", range(12))
def test_any_changes_give_the_snapshot_of_the_changed_table(seed):
    rng = np.random.default_rng(seed)
    rows, deleted = draw_rows(rng, 40 if seed else SLICED + 40), set()
    base = build_snapshot(rows)
    changes = draw_changes(rng, 80, len(rows))
    live = LiveItems(base, UNTOUCHED, {"price": 2})
    before = build_snapshot(rows)
    for batch in split(rng, changes, 7):
        live.apply(batch)
        apply_to_rows(rows, batch, deleted)
        wanted = build_snapshot(rows, deleted)
        assert_same(live.snapshot, wanted)
        assert set(live.snapshot.items.ids(np.flatnonzero(live.snapshot.is_deleted(np.arange(len(wanted)))))) == deleted
    assert_same(base, before)
    assert not np.array_equal(base.available, live.snapshot.available[: len(base)])


def test_numbers_do_not_depend_on_how_changes_are_batched(rng):
    base = build_snapshot(draw_rows(rng, 20))
    changes = draw_changes(rng, 200, 20)
    first, other = (LiveItems(base, UNTOUCHED, {"price": 2}) for _ in range(2))
    for batch in split(rng, changes, 9):
        first.apply(batch)
    for change in changes:
        other.apply([change])
    for name in ("items", "creators", "tags"):
        one, two = getattr(first.snapshot, name), getattr(other.snapshot, name)
        assert one.ids(np.arange(len(one))) == two.ids(np.arange(len(two)))
        assert len(one) > len(getattr(base, name))
    assert_same(first.snapshot, other.snapshot)


def test_a_version_stays_as_it_was(rng):
    rows = draw_rows(rng, 30)
    live, versions, deleted = LiveItems(build_snapshot(rows), UNTOUCHED, {"price": 2}), [], set()
    for change in draw_changes(rng, 40, 30):
        apply_to_rows(rows, [change], deleted)
        versions.append((live.apply([change]), build_snapshot(rows, deleted)))
    for version, wanted in versions:
        assert_same(version, wanted)
        with pytest.raises(ValueError, match="read-only"):
            version.available[0] = True


@pytest.mark.parametrize("seed", range(6))
def test_masks_filters_and_counts_are_those_of_the_changed_table(seed):
    rng = np.random.default_rng(100 + seed)
    rows, deleted = draw_rows(rng, 60), set()
    config = Config(name="shop")
    live = LiveItems(build_snapshot(rows), UNTOUCHED, {"price": 2})
    eligibility = Eligibility.of(live.snapshot, config)
    eligibility.find_available(np.array([NOW]))
    for batch in split(rng, draw_changes(rng, 60, 60), 4):
        snapshot = live.apply(batch)
        apply_to_rows(rows, batch, deleted)
        wanted = build_snapshot(rows, deleted, *[v.ids(np.arange(len(v))) for v in (snapshot.creators, snapshot.tags)])
        eligibility = eligibility.with_snapshot(snapshot)
        scratch = Eligibility.of(wanted, config)
        for text in (
            "item.price > 4",
            "'t13' in item.tags",
            "item.shelf in ['s1', 's2']",
            "not item.available",
            "item.published_at is null or item.price <= 2",
        ):
            assert np.array_equal(get_filters(snapshot).mask(text), get_filters(wanted).mask(text)), text
        requests = draw_requests(rng, wanted, rows=4, seen=5).with_filters(
            ["item.price > 2", None, None, "item.price < 8"]
        )
        blocked = [rng.integers(0, len(v), 2) for v in (wanted.creators, wanted.tags)]
        requests = replace(
            requests,
            time=NOW + rng.integers(-6, 9, 4) * DAY_US,
            exclusions=replace(
                UserExclusions.empty(4),
                creator=Ragged.from_rows([blocked[0], [], [], []]), tag=Ragged.from_rows([[], blocked[1], [], []]),
            ),
        )  # fmt: skip
        assert np.array_equal(eligibility.mask(requests), scratch.mask(requests))
        items = np.tile(np.arange(len(wanted), dtype=np.int32), (4, 1))
        assert np.array_equal(eligibility.allows(requests, items), scratch.allows(requests, items))
        assert count_removed(eligibility, requests) == count_removed(scratch, requests)
        mine, theirs = (find_removals(e, requests, items) for e in (eligibility, scratch))
        assert mine.keys() == theirs.keys() and all(np.array_equal(mine[n], theirs[n]) for n in mine)
        tags, creators = np.arange(0, len(snapshot.tags), 3), np.arange(0, len(snapshot.creators), 3)
        assert np.array_equal(select_by_tag(snapshot, tags), select_by_tag(wanted, tags))
        assert np.array_equal(select_by_creator(snapshot, creators), select_by_creator(wanted, creators))
    assert isinstance(snapshot, LiveSnapshot)


def test_a_value_that_does_not_fit_its_column_is_null(rng):
    live = LiveItems(build_snapshot(draw_rows(rng, 5)), UNTOUCHED, {"price": 2})
    live.apply([Change("i1", "patch", {"price": "cheap", "title": 5}), Change("i2", "patch", {"no_such_column": 1})])
    row = live.snapshot.read_metadata(np.array([1])).to_pylist()[0]
    assert row["price"] is None and row["title"] == "5"
    assert np.isnan(live.snapshot.values[1, 2])
