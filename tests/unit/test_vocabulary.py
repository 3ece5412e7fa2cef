"""Ids ↔ numbers: exact for any text, in memory and in mapped files, with memory for their bytes only."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.catalog import vocabulary
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.errors import DataError

ANY_ID = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
LOOK_ALIKES = ["a", "a\0", "a\0\0", " a", "a ", "A", "ä", "a\u0308", "\0", "a/b", "a%2Fb", "007", "7", "7.0", "nan"]


@settings(deadline=None)
@given(ids=st.lists(ANY_ID, max_size=60), other=st.lists(ANY_ID, max_size=10))
def test_number_and_ids_are_inverse_for_any_text(ids, other):
    known = Vocabulary.of(ids)
    unique = list(dict.fromkeys(ids))
    assert len(known) == len(unique)
    assert known.number(unique).tolist() == list(range(len(unique)))
    assert known.ids(np.arange(len(known))) == unique
    place = {name: number for number, name in enumerate(unique)}
    assert known.number(other).tolist() == [place.get(name, -1) for name in other]


@settings(deadline=None)
@given(first=st.lists(ANY_ID, max_size=30), later=st.lists(ANY_ID, max_size=30))
def test_numbers_are_permanent(first, later):
    before = Vocabulary.of(first)
    after = before.extend(later)
    assert after.ids(np.arange(len(after))) == list(dict.fromkeys([*first, *later]))
    assert after.number(first).tolist() == before.number(first).tolist()
    assert after.starts_with(before)
    assert before.starts_with(after) == (len(before) == len(after))


@settings(deadline=None)
@given(ids=st.lists(ANY_ID | st.sampled_from(LOOK_ALIKES), max_size=60))
def test_saved_and_mapped_is_the_same(ids, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ids")
    known = Vocabulary.of(ids)
    known.save(folder)
    mapped = Vocabulary.load(folder)
    assert mapped.ids(np.arange(len(mapped))) == known.ids(np.arange(len(known)))
    assert mapped.number([*ids, "missing"]).tolist() == known.number([*ids, "missing"]).tolist()


def test_look_alikes_are_different_ids():
    known = Vocabulary.of(LOOK_ALIKES)
    assert known.number(LOOK_ALIKES).tolist() == list(range(len(LOOK_ALIKES)))
    assert known.number(["a\0\0\0", "", "b", "\ud800"]).tolist() == [-1] * 4


@settings(deadline=None)
@given(ids=st.lists(ANY_ID, max_size=30), other=st.lists(ANY_ID, max_size=10))
def test_ids_of_equal_hash_are_told_apart(ids, other):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "crc32", lambda data: len(data) % 2)
        patch.setattr(vocabulary, "compiled", None)  # the kernel has the hash built in: see test_kernels_of_slates.py
        known = Vocabulary.of(ids).extend(other)
        assert known.number([*ids, *other, "missing!"]).tolist() == [
            *(list(dict.fromkeys([*ids, *other])).index(name) for name in [*ids, *other]), -1
        ]  # fmt: skip


def test_memory_does_not_depend_on_the_longest_id(tmp_path):
    ids = [f"u{number}" for number in range(20_000)]
    for name, known in (("short", ids), ("long", [*ids, "x" * 20_000])):
        Vocabulary.of(known).save(tmp_path / name)
    short, long = (sum(file.stat().st_size for file in (tmp_path / name).iterdir()) for name in ("short", "long"))
    assert short < 20 * len(ids)
    assert long < short + 25_000


def test_a_catalog_of_another_version_is_refused_in_one_sentence(tmp_path):
    np.save(tmp_path / "ids.npy", np.array([b"a"]))
    with pytest.raises(DataError, match=r"expected ids\.arrow.*another version of handsell.*handsell data CONFIG"):
        Vocabulary.load(tmp_path)


@pytest.mark.parametrize("name", ["ids.arrow", "hashes.npy", "order.npy"])
@pytest.mark.parametrize("left", [b"", b"x", b"not a table or an array"])
def test_a_damaged_catalog_is_one_sentence(tmp_path, name, left):
    Vocabulary.of(["a", "b"]).save(tmp_path)
    (tmp_path / name).write_bytes(left)
    with pytest.raises(DataError, match=r"is damaged \(.*run `handsell up CONFIG`"):
        Vocabulary.load(tmp_path)
