"""The compiled kernels of features, encoders and re-ranking give what the NumPy code gives, bit for bit."""

import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from handsell.catalog import vocabulary as vocabularies
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import NONE, Ragged
from handsell.core.kernels import check_current, compiled
from handsell.core.units import DAY_US
from handsell.features import crosses, matrix
from handsell.features.item import SnapshotValues
from handsell.reranking import mmr, reasons, similarity
from handsell.reranking.reasons import REASONS, Evidence
from handsell.retrieval.models import two_tower
from handsell.testing.feature_contract import CONFIG
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot
from kernel_results import check_equal
from server_programs import report_missing

OWN = {"user": ("one", "other"), "item": ("a", "b", "c")}  # columns of drawn users and items
SOURCES = ("popularity", "item_knn", "content", "als")


@pytest.fixture(autouse=True)
def require_kernels_of_slates():
    if compiled is None:
        report_missing("the kernels were not built: no C compiler at installation")


@pytest.mark.parametrize("rows", [1, 16])
def test_the_whole_matrix(rng, monkeypatch, rows):
    shelf = draw_snapshot(rng)
    requests, found = draw_requests(rng, shelf, rows), draw_candidates(rng, shelf, rows, 40, pad=4)
    requests.history.item[0] = NONE

    def build():
        return (matrix.build_matrix(requests, found, SnapshotValues(shelf), shelf, CONFIG, groups=groups),)

    groups = {**matrix.group_features(CONFIG, found.sources), **OWN}
    check_equal(monkeypatch, matrix, build)


@pytest.mark.parametrize("length", [1, 7, 50, 200])  # two_tower.HISTORY events are read
def test_the_inputs_of_the_user_tower(rng, monkeypatch, length):
    requests = draw_requests(rng, draw_snapshot(rng), 6)
    item = rng.integers(-1, 90, (6, length)).astype(np.int32)
    time = np.sort(rng.integers(0, 90 * DAY_US, (6, length)), axis=1) + requests.time[:, None] - 80 * DAY_US
    weight = rng.choice(np.array([1, 2.5, -0.5, 0], np.float32), (6, length))
    weight[1] = -np.abs(weight[1])  # no likes
    requests = replace(requests, history=replace(requests.history, item=item, time=time, weight=weight))
    check_equal(monkeypatch, two_tower, lambda: two_tower.build_user_inputs(requests.history, requests.time, 80))


def test_relevance(rng, monkeypatch):
    score = rng.normal(size=(5, 30)).astype(np.float32)
    score[rng.random(score.shape) < 0.2] = np.nan
    score[rng.random(score.shape) < 0.1] = np.inf
    score[1], score[2] = 3.0, np.nan
    allowed = rng.random(score.shape) < 0.8
    allowed[3] = False
    check_equal(monkeypatch, mmr, lambda: (mmr.scale_scores(score, allowed),))


@pytest.mark.parametrize("rows", [1, 7])
def test_tag_vectors(rng, monkeypatch, rows):
    shelf = draw_snapshot(rng)
    items = rng.integers(-1, len(shelf), (rows, 60)).astype(np.int32)
    check_equal(monkeypatch, similarity, lambda: (similarity.build_tag_vectors(shelf, items),))
    items[:] = NONE
    check_equal(monkeypatch, similarity, lambda: (similarity.build_tag_vectors(shelf, items),))


def test_every_reason(rng, monkeypatch):
    rows, n, seen = 40, 12, set()
    shelf = draw_snapshot(rng)
    requests = draw_requests(rng, shelf, rows)
    length = requests.history.item.shape[1]
    weight = rng.choice(np.array([1, 2, -0.5, 0], np.float32), (rows, length))
    requests = replace(requests, history=replace(requests.history, weight=weight))
    requests.history.item[0] = NONE
    shelf.available[::5] = False  # items that no reason names
    shelf.published[::3] = requests.time[0] - 5 * DAY_US
    item = rng.integers(-1, len(shelf), (rows, n)).astype(np.int32)
    source = rng.choice(np.array([0, 1, 2, 4, 6, 9], np.uint32), item.shape)
    near = rng.choice(np.array([0, 0.3, 0.499, 0.5, 1], np.float32), (rows, n, length), p=[0.9, 0.06, 0.01, 0.02, 0.01])
    evidence = Evidence(item, source, SOURCES, near)
    for liked in (2.0, 1.0, np.inf):
        check_equal(monkeypatch, reasons, lambda liked=liked: reasons.choose_reasons(requests, evidence, shelf, liked))
        seen |= set(reasons.choose_reasons(requests, evidence, shelf, liked)[0].ravel().tolist())
    assert seen == set(range(len(REASONS) - 1))  # all but exploration


def test_numbers_of_texts(monkeypatch):
    ids = [*(f"i{n}é" * (n % 3 + 1) for n in range(500)), "", "😀"]
    vocabulary = Vocabulary.of(ids)
    asked = [*reversed(ids), "unknown", "i1", "i1"]
    check_equal(monkeypatch, vocabularies, lambda: (vocabulary.number(asked), vocabulary.number(tuple(asked))))
    check_equal(monkeypatch, vocabularies, lambda: (vocabulary.number([*asked, "half a character \ud800"]),))
    numbers = np.arange(len(ids))[::-3]
    for some in (numbers, numbers[:4], numbers[:0]):
        check_equal(monkeypatch, vocabularies, lambda some=some: (np.array(vocabulary.ids(some), object),))
    with pytest.raises(ValueError, match="numbers of texts"):
        vocabulary.ids(np.array([len(ids)]))


def test_texts_of_equal_hash_are_told_apart():
    alike = Vocabulary.of(["a", "b", "c"])
    hashes = np.full(3, zlib.crc32(b"b"), np.uint32)
    found = replace(alike, hashes=hashes).number(["b", "a", "d"])
    assert found.tolist() == [1, NONE, NONE]


def test_items_beyond_the_catalog_are_refused(rng):
    shelf = draw_snapshot(rng)
    beyond = np.full((1, 3), len(shelf), np.int32)
    with pytest.raises(ValueError, match="items of the catalog"):
        similarity.build_tag_vectors(shelf, beyond)
    requests, found = draw_requests(rng, shelf, 1), draw_candidates(rng, shelf, 1, 3, pad=0)
    found, groups = replace(found, item=beyond), {**matrix.group_features(CONFIG, found.sources), **OWN}
    with pytest.raises(ValueError, match="items of the catalog"):
        matrix.build_matrix(requests, found, SnapshotValues(shelf), shelf, CONFIG, groups=groups)


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("k", [0, 1, 9])
def test_odd_requests(rng, monkeypatch, rows, k):
    """No requests, no candidates, histories without likes or with strange numbers, few items without tags or values."""
    shelf = draw_snapshot(rng, items=3)
    shelf.values[:] = np.nan
    shelf = replace(shelf, item_tags=Ragged.from_rows([[2, 2, 0], [], [0, 2]]))  # the first has a tag twice
    requests = draw_requests(rng, shelf, rows, history=4, affinities=0, seen=1)
    weight = rng.choice(np.array([1, -1, 0, 1e-40, 3e38, np.nan], np.float32), (rows, 4))
    time = rng.integers(-(2**62), 2**62, (rows, 4))
    requests = replace(requests, history=replace(requests.history, weight=weight, time=time))
    items = np.asfortranarray(rng.integers(-1, 3, (rows, k)).astype(np.int32))
    history, at = requests.history, requests.time
    check_equal(monkeypatch, two_tower, lambda: two_tower.build_user_inputs(history, at, 2))
    check_equal(monkeypatch, similarity, lambda: (similarity.build_tag_vectors(shelf, items),))
    check_equal(monkeypatch, crosses, lambda: (crosses.compute_crosses(requests, items, shelf),))
    evidence = Evidence(items, np.full(items.shape, 2**31, np.uint32), SOURCES, np.zeros((*items.shape, 4), np.float32))
    check_equal(monkeypatch, reasons, lambda: reasons.choose_reasons(requests, evidence, shelf, 1.0))
    found = draw_candidates(rng, shelf, rows, 3, pad=3) if rows else None
    if found is not None:  # nothing but padding
        groups = {**matrix.group_features(CONFIG, found.sources), **OWN}

        def build():
            return (matrix.build_matrix(requests, found, SnapshotValues(shelf), shelf, CONFIG, groups=groups),)

        check_equal(monkeypatch, matrix, build)


@pytest.mark.parametrize("begin", [[0, 4, 3, 3], [0, 4, 4, 4], [-1, 0, 3, 3]])
def test_tags_beyond_their_array_are_refused(rng, begin):
    shelf = draw_snapshot(rng, items=3)
    tags = Ragged(np.zeros(3, np.int32), np.array(begin))
    shelf, requests = replace(shelf, item_tags=tags), draw_requests(rng, shelf, 1, seen=1)
    items = np.array([[2, 1, 0]], np.int32)
    evidence = Evidence(items, np.ones((1, 3), np.uint32), SOURCES, np.zeros((1, 3, 20), np.float32))
    with pytest.raises(ValueError, match="items of the catalog"):
        similarity.build_tag_vectors(shelf, items)
    with pytest.raises(ValueError, match="items of the catalog"):
        crosses.compute_crosses(requests, items, shelf)
    with pytest.raises(ValueError, match="items of the catalog"):
        reasons.choose_reasons(requests, evidence, shelf, 1.0)


def test_padding_of_an_empty_catalog_is_unknown():
    out = np.zeros((1, 2, 5), np.float32)
    row, items = np.ones((1, 1), np.float32), np.full((1, 2), NONE, np.int32)
    compiled.write_values(row, np.zeros((0, 3), np.float32), items, row, out, 0, 1, 4)
    assert np.array_equal(out, [[[1, np.nan, np.nan, np.nan, 1]] * 2], equal_nan=True)


def test_kernels_of_other_sources_are_not_used():
    assert check_current(compiled) is compiled
    for other in (SimpleNamespace(__file__="old"), SimpleNamespace(__file__="old", checksum=1)):
        with pytest.warns(RuntimeWarning, match=r"old was built from other C files .*: build it again with"):
            assert check_current(other) is None
