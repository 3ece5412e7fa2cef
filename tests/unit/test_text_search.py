"""Full-text search over a catalog: what is found, in which order, and that it follows live changes."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from handsell.catalog import text_search
from handsell.catalog.live_items import LiveItems
from handsell.catalog.text_search import TextIndex, build_query
from handsell.core.errors import DataError
from handsell.testing.small_catalog import draw_snapshot

ROWS = {
    "i0": {"title": "Crème Brûlée", "creators": ["Ann Lee"], "tags": ["dessert"], "text": "blue hearts inside"},
    "i1": {"title": "Blue Hearts", "creators": ["The Creme Band"], "tags": ["punk", "new wave"]},
    "i2": {"title": 'Say "Hello" AND NOT goodbye*', "brand": "Lumière & Co"},
    "i3": {"title": "東京の夜", "tags": ["シティポップ"]},
    "i4": {"title": "Second Sun", "brand": "Acme"},
    "i5": {},
}


@dataclass(frozen=True)
class ItemEdit:
    id: str
    action: str
    fields: dict[str, Any] = field(default_factory=dict)


def build_metadata(rows) -> pa.Table:
    texts, lists = pa.string(), pa.list_(pa.string())
    types = {
        "item_id": texts, "title": texts, "creators": lists, "tags": lists, "text": texts,
        "brand": pa.dictionary(pa.int32(), texts), "year": pa.int64(), "available": pa.bool_(),
    }  # fmt: skip
    records = [{"item_id": i, **row} for i, row in rows.items()]
    return pa.table({name: pa.array([r.get(name) for r in records], kind) for name, kind in types.items()})


@pytest.fixture
def snapshot(rng):
    return replace(draw_snapshot(rng, len(ROWS)), metadata=build_metadata(ROWS))


@pytest.fixture
def index(tmp_path, snapshot):
    made = TextIndex(tmp_path / "console" / "search.db", snapshot)
    yield made
    made.close()


@pytest.mark.parametrize(
    "text, found",
    [
        ("creme", [0, 1]),  # the title counts more than the creator
        ("BRULEE crème", [0]),
        ("blue hear", [1, 0]),  # of the title before the text
        ("new wave", [1]),
        ("wave dessert", []),
        ("i4", [4]),
        ("acme", [4]),
        ("lumiere & co", [2]),
        ('"hello" and', [2]),
        ("goodbye*", [2]),
        ("京の", [3]),
        ("夜", [3]),
        ("ポップ", [3]),
        ("の東", []),
        ("*", []),
        ('"', []),
        ("  ", []),
        ("title:blue OR", []),
        ("NEAR(", []),
    ],
)
def test_words_find_items_whatever_their_case_and_accents(index, text, found):
    assert index.search(text, 10) == found


def test_no_text_is_a_mistake_of_syntax(index, rng):
    letters = list("ab\"'*():^-+{}[]\\ \0NOTANDOR京é🎵\ud800\n")
    for _ in range(300):
        index.search("".join(rng.choice(letters, rng.integers(0, 12))), 5)
    assert build_query("a " * 1_000).count(" *") == text_search.LONGEST_QUERY


def test_a_whole_word_comes_before_its_beginning(tmp_path, snapshot):
    rows = {f"i{n}": {"title": f"Song {word}"} for n, word in enumerate(["sunday", "sunny", "sun", "sunset"])}
    index = TextIndex(tmp_path / "s.db", replace(snapshot, metadata=build_metadata(rows)))
    assert index.search("sun", 9) == [2, 0, 1, 3]


def test_at_most_so_many_are_found_the_best_ones(tmp_path, snapshot):
    rows = {f"i{n}": {"text": "needle"} for n in range(40)} | {"i40": {"title": "needle"}}
    index = TextIndex(tmp_path / "s.db", replace(snapshot, metadata=build_metadata(rows)))
    assert index.search("needle", 3) == [40, 0, 1]


def test_changed_new_and_deleted_items_are_found_as_they_are_now(tmp_path, snapshot, index):
    live = LiveItems(snapshot, np.zeros(snapshot.values.shape[1], np.float32), {})
    changed = live.apply([ItemEdit("i4", "patch", {"title": "Third Moon"}), ItemEdit("new", "put", {"title": "Moon"})])
    index.follow(changed)
    assert index.search("sun", 9) == [] and index.search("moon", 9) == [6, 4]
    index.follow(live.apply([ItemEdit("new", "delete")]))
    assert index.search("moon", 9) == [4]
    again = live.apply([ItemEdit("new", "put", {"title": "Full Moon"})])
    index.follow(again)
    assert sorted(index.search("moon", 9)) == [4, 6]
    reopened = TextIndex(tmp_path / "console" / "search.db", again)  # the file of an earlier process
    assert sorted(reopened.search("moon", 9)) == [4, 6] and reopened.search("brulee", 9) == [0]


def test_the_same_is_found_whatever_the_size_of_the_parts(tmp_path, snapshot, monkeypatch):
    monkeypatch.setattr(text_search, "AT_ONCE", 2)
    index = TextIndex(tmp_path / "parts.db", snapshot)
    assert index.search("acme", 9) == [4] and index.search("creme", 9) == [0, 1]


@pytest.mark.parametrize("content", [b"", b"no database at all" * 99])
def test_a_damaged_file_is_built_again(tmp_path, snapshot, content):
    (tmp_path / "s.db").write_bytes(content)
    assert TextIndex(tmp_path / "s.db", snapshot).search("acme", 9) == [4]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, snapshot):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot store the words of the catalog in .*file"):
        TextIndex(tmp_path / "file" / "s.db", snapshot)


def test_a_file_whose_building_was_interrupted_is_never_used(tmp_path, snapshot, monkeypatch):
    def fail(metadata):
        yield ("i0", "half", "", "", "", "")
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(DataError, match="no space left"):
        patch.setattr(text_search, "_read_rows", fail)
        TextIndex(tmp_path / "s.db", snapshot)
    assert not (tmp_path / "s.db").exists()
    assert TextIndex(tmp_path / "s.db", snapshot).search("acme", 9) == [4]


def test_text_that_is_not_utf_8_is_searched_by_what_can_be_read(tmp_path, snapshot):
    raw = pa.array([b"caf\xe9 noir", b"plain"]).view(pa.string())
    tags = pa.array([[b"d\xe9j"], [b"vu"]], pa.list_(pa.binary())).cast(pa.list_(pa.binary()))
    tags = pa.ListArray.from_arrays(tags.offsets, tags.values.view(pa.string()))
    metadata = pa.table({"item_id": ["a", "b"], "title": raw, "tags": tags})
    index = TextIndex(tmp_path / "s.db", replace(snapshot, metadata=metadata))
    assert index.search("noir", 9) == [0] and index.search("vu plain", 9) == [1]


def test_a_catalog_without_titles_is_searched_by_id(tmp_path, snapshot):
    metadata = pa.table({"item_id": ["B0-123", "B0-456"]})
    assert TextIndex(tmp_path / "s.db", replace(snapshot, metadata=metadata)).search("b0-4", 9) == [1]
