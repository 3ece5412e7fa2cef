"""The vector index: exactness, independence of batches, masks, ties, and the recall of approximate indexes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.core.errors import BundleError
from handsell.data.interactions import Interactions
from handsell.jobs.train.publication import describe_indexes
from handsell.retrieval.config import RetrievalConfig
from handsell.retrieval.index.approximate import SPARE
from handsell.retrieval.index.index_fitting import choose_kind, compute_recall, fit_index
from handsell.retrieval.index.nearest import Nearest
from handsell.retrieval.index.query_sampling import sample_requests
from handsell.retrieval.index.vector_index import MOSTLY, VectorIndex, compute_products

ITEMS, SIZE = 3000, 16


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def vectors(rng):
    return rng.standard_normal((ITEMS, SIZE)).astype(np.float32)


def naive(query, vectors, allowed, k):
    """Every product in turn, sorted by score, then item."""
    scored = [(-float(np.einsum("kd,d->k", vectors[i : i + 1], query)[0]), i) for i in np.flatnonzero(allowed)]
    return [i for _, i in sorted(scored)[:k]]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.02, 0.002, 0.0])
def test_search_is_exact_at_every_pass_rate(rng, vectors, share):
    index = VectorIndex.exact(vectors)
    queries = rng.standard_normal((3, SIZE)).astype(np.float32)
    allowed = rng.random((3, ITEMS)) < share
    items, _ = index.search(queries, 25, allowed)
    for b in range(3):
        expected = naive(queries[b], vectors, allowed[b], 25)
        assert items[b].tolist() == expected + [-1] * (25 - len(expected))


def test_ties_at_the_cut_are_ordered_by_item_number(rng, vectors):
    vectors[rng.choice(ITEMS, 500, replace=False)] = vectors[7]  # far more equals than SPARE
    items, scores = VectorIndex.exact(vectors).search(vectors[[7]], 20, np.ones((1, ITEMS), bool))
    equals = np.flatnonzero((vectors == vectors[7]).all(axis=1))
    best = naive(vectors[7], vectors, np.ones(ITEMS, bool), 20)
    assert items[0].tolist() == best
    assert np.isin(equals[:5], items[0]).all() and SPARE < 480
    assert (scores[0][np.isin(items[0], equals)] == scores[0][np.isin(items[0], equals)][0]).all()


def test_scores_do_not_depend_on_the_batch(rng, vectors):
    index = VectorIndex.exact(vectors)
    queries = rng.standard_normal((9, SIZE)).astype(np.float32)
    allowed = rng.random((9, ITEMS)) < 0.7
    together = index.search(queries, 100, allowed)
    for b in range(9):
        alone = index.search(queries[b : b + 1], 100, allowed[b : b + 1])
        assert np.array_equal(alone[0][0], together[0][b]) and np.array_equal(alone[1][0], together[1][b])
    assert np.array_equal(index.score(queries, together[0]), together[1])


def test_a_batch_of_queries_gives_the_scores_of_single_ones(rng, vectors):
    index = VectorIndex.exact(vectors)
    queries = rng.standard_normal((150, vectors.shape[1])).astype(np.float32)  # more than one block of them
    queries[[3, 140]] = 0
    allowed = rng.random((150, len(vectors))) < 0.5
    allowed[7] = False
    allowed[8, 5:] = False  # fewer than k
    together = index.search(queries, 9, allowed)
    for b in range(150):
        alone = index.search(queries[b : b + 1], 9, allowed[b : b + 1])
        for a, t in zip(alone, together, strict=True):
            assert np.array_equal(a[0], t[b], equal_nan=True)


def test_zero_vectors_are_unknown_and_zero_queries_find_no_item(vectors):
    vectors[[3, 5]] = 0
    index = VectorIndex.exact(vectors)
    queries = np.stack([np.zeros(SIZE, np.float32), vectors[0]])
    items, _ = index.search(queries, ITEMS, np.ones((2, ITEMS), bool))
    assert (items[0] == -1).all()
    assert not np.isin([3, 5], items[1]).any() and (items[1] != -1).sum() == ITEMS - 2
    assert np.isnan(index.score(queries, np.array([[3, 5], [3, 5]]))).all()


MANY, K = 6000, 100
SIZES = {"flat_below": 1000, "index_recall": 0.95}
APPROXIMATE = {"ivf": RetrievalConfig(**SIZES, pq_above=MANY), "ivf_pq": RetrievalConfig(**SIZES, pq_above=2000)}


def found_share(found, truth):
    return compute_recall(found, truth).mean()


def clustered(rng, centers, count):
    return (centers[rng.integers(0, len(centers), count)] + rng.standard_normal((count, SIZE))).astype(np.float32)


@pytest.fixture(scope="module")
def clusters():
    """Vectors of many lengths around 40 centers, of which a few are unknown, and users that lie between them."""
    rng = np.random.default_rng(1)
    centers = rng.standard_normal((40, SIZE)) * 3
    vectors = clustered(rng, centers, MANY) * rng.lognormal(0, 0.3, (MANY, 1)).astype(np.float32)
    vectors[rng.choice(MANY, 50, replace=False)] = 0
    return vectors, (clustered(rng, centers, 300) + clustered(rng, centers, 300)) / 2


@pytest.fixture(scope="module", params=APPROXIMATE)
def approximate(request, clusters, tmp_path_factory):
    """Fitted, saved and loaded."""
    fitted = fit_index(clusters[0], APPROXIMATE[request.param], K, lambda: clusters[1][:200])
    assert fitted.approximate.kind == request.param
    path = tmp_path_factory.mktemp(request.param)
    fitted.save(path)
    return VectorIndex.load(path)


def test_the_kind_depends_on_the_number_of_items():
    config = RetrievalConfig(flat_below=10, pq_above=20)
    assert [choose_kind(items, config) for items in (10, 11, 20, 21)] == [None, "ivf", "ivf", "ivf_pq"]


def test_small_catalogs_get_an_exact_index_without_queries(vectors):
    def never():
        raise AssertionError("an exact index needs no queries")

    assert fit_index(vectors, RetrievalConfig(flat_below=ITEMS), 10, never).approximate is None


def test_an_approximate_index_reaches_and_reports_its_recall(approximate, clusters):
    vectors, users = clusters
    queries, everything = users[200:], np.ones((100, MANY), bool)  # none that it was tuned on
    truth = VectorIndex.exact(vectors).search(queries, K, everything)[0]
    recall = found_share(approximate.search(queries, K, everything)[0], truth)
    tuned = approximate.approximate.settings
    assert recall >= 0.93 and abs(recall - tuned.recall) < 0.03
    assert tuned.k == K and tuned.stated == 0.95 and tuned.queries == "users"
    assert tuned.nprobe < approximate.approximate.lists.nlist  # not by reading all of it


@pytest.mark.parametrize("share", [0.9, 0.3, 0.05])
def test_recall_holds_under_masks(approximate, clusters, share):
    vectors, users = clusters
    queries, eligible = users[200:240], np.random.default_rng(2).random((40, MANY)) < share
    truth = VectorIndex.exact(vectors).search(queries, K, eligible)[0]
    items = approximate.search(queries, K, eligible)[0]
    assert found_share(items, truth) >= 0.93
    assert eligible[np.arange(40)[:, None], items].all()


@pytest.mark.parametrize("count", [0, 1, K - 1, K + SPARE + 1, 400])
def test_k_items_are_returned_under_narrow_masks(approximate, clusters, count):
    vectors, users = clusters
    known = np.flatnonzero(vectors.any(axis=1))
    eligible = np.zeros((5, MANY), bool)
    for row in eligible:
        row[np.random.default_rng(3).choice(known, count, replace=False)] = True
    items, _ = approximate.search(users[:5], K, eligible)
    assert ((items != -1).sum(axis=1) == min(count, K)).all()
    assert all(eligible[b, i] for b in range(5) for i in items[b] if i != -1)


def test_k_items_are_returned_where_the_mask_excludes_the_nearest(approximate, clusters):
    """The eligible share of the whole catalog is misleading, since no item proposed first is eligible."""
    vectors, users = clusters
    score = vectors @ users[0]
    eligible = (score < np.quantile(score, MOSTLY + 0.1))[None]
    assert approximate._sample.size and eligible[0, approximate._sample].mean() >= MOSTLY
    items, _ = approximate.search(users[:1], K, eligible)
    assert (items != -1).all() and eligible[0, items[0]].all()


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_approximate_scores_agree_with_score_in_any_batch(approximate, clusters, share):
    users, eligible = clusters[1][:12].copy(), np.random.default_rng(4).random((12, MANY)) < share
    users[5] = 0
    items, scores = approximate.search(users, K, eligible)
    assert np.array_equal(approximate.score(users, items), scores, equal_nan=True)
    assert (items[5] == -1).all() and not (items[np.arange(12) != 5] == -1).any()
    for b in range(12):
        alone = approximate.search(users[b : b + 1], K, eligible[b : b + 1])
        assert np.array_equal(alone[0][0], items[b]) and np.array_equal(alone[1][0], scores[b], equal_nan=True)


def test_a_larger_k_than_tuned_for_reads_more_lists(approximate, clusters):
    vectors, users = clusters
    queries, everything = users[200:230], np.ones((30, MANY), bool)
    truth = VectorIndex.exact(vectors).search(queries, 4 * K, everything)[0]
    assert found_share(approximate.search(queries, 4 * K, everything)[0], truth) >= 0.93


def test_half_precision_vectors_are_stored_and_scored_unchanged(clusters, tmp_path):
    half = clusters[0].astype(np.float16)
    index = fit_index(half, APPROXIMATE["ivf_pq"], K, lambda: clusters[1])
    index.save(tmp_path)
    loaded = VectorIndex.load(tmp_path)
    assert loaded.vectors.dtype == np.float16
    items, scores = loaded.search(clusters[1][:1], K, np.ones((1, MANY), bool))
    assert np.array_equal(scores[0], compute_products(half[items[0]].astype(np.float32), clusters[1][0]))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="reads the mappings from /proc")
def test_loaded_lists_are_mapped_and_not_copied(approximate, clusters):
    """A search reads pages of the index's files, without copies in the process."""
    approximate.search(clusters[1][:20], K, np.ones((20, MANY), bool))
    kib, name = {}, ""
    for words in map(str.split, Path("/proc/self/smaps").read_text().splitlines()):
        if not words[0].endswith(":"):
            name = Path(words[-1]).name
        elif words[0] in ("Rss:", "Anonymous:"):
            kib[name, words[0]] = kib.get((name, words[0]), 0) + int(words[1])
    lists = {"ivf": "ivf.faiss", "ivf_pq": "lists.bin"}[approximate.approximate.kind]
    for file in (lists, "vectors.npy"):
        assert kib[file, "Rss:"] > 0 and kib[file, "Anonymous:"] == 0, file


def test_packed_lists_give_the_same_results_after_loading(clusters, tmp_path):
    fitted = fit_index(clusters[0], APPROXIMATE["ivf_pq"], K, lambda: clusters[1])
    mask = np.random.default_rng(3).random((50, MANY)) < 0.3
    before = fitted.search(clusters[1][:50], K, mask)
    fitted.save(tmp_path)
    for index in (fitted, VectorIndex.load(tmp_path)):
        assert all(np.array_equal(b, a) for b, a in zip(before, index.search(clusters[1][:50], K, mask), strict=True))


def cut_short(path):
    (path / "lists.bin").write_bytes((path / "lists.bin").read_bytes()[:-8])
    return r"lists.bin: expected \d+ bytes, got \d+"


def one_list_more(path):
    np.save(path / "list_sizes.npy", np.append(np.load(path / "list_sizes.npy"), 0))
    return r"list_sizes.npy: expected 77 lists of 5950 items, got 78 of 5950"


def one_item_less(path):
    np.save(path / "list_sizes.npy", np.load(path / "list_sizes.npy") - np.eye(1, 77, dtype=np.int64)[0])
    return r"list_sizes.npy: expected 77 lists of 5950 items, got 77 of 5949"


def not_there(path):
    (path / "list_sizes.npy").unlink()
    return r"list_sizes.npy, which is missing"


@pytest.mark.parametrize("broken", [cut_short, one_list_more, one_item_less, not_there])
def test_inconsistent_packed_lists_are_rejected(clusters, tmp_path, broken):
    fit_index(clusters[0], APPROXIMATE["ivf_pq"], K, lambda: clusters[1]).save(tmp_path)
    with pytest.raises(BundleError, match=broken(tmp_path)):
        VectorIndex.load(tmp_path)


def test_saving_a_loaded_index_of_packed_lists_is_an_error(clusters, tmp_path):
    fit_index(clusters[0], APPROXIMATE["ivf_pq"], K, lambda: clusters[1]).save(tmp_path / "first")
    with pytest.raises(ValueError, match="expected an index in memory, got one with mapped lists"):
        VectorIndex.load(tmp_path / "first").save(tmp_path / "second")


def test_a_bundle_reports_the_recall_of_its_approximate_indexes(clusters, tmp_path):
    index = fit_index(clusters[0], APPROXIMATE["ivf"], K, lambda: clusters[1])
    index.save(tmp_path / "retrievers" / "als" / "index")
    VectorIndex.exact(clusters[0][:10]).save(tmp_path / "retrievers" / "content" / "index")
    (note,) = describe_indexes(tmp_path)
    assert note.startswith("als: the ivf index reads") and f"{index.approximate.settings.recall:.1%}" in note


def test_without_users_sampled_items_are_the_queries(clusters):
    index = fit_index(clusters[0], APPROXIMATE["ivf"], K, lambda: np.zeros((3, SIZE), np.float32))
    assert index.approximate.settings.queries == "items"


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(0, 10))
def test_the_nearest_items_by_blocks_are_the_nearest_of_all(k, sizes, seed):
    rng = np.random.default_rng(seed)
    vectors, queries = rng.standard_normal((sum(sizes), 4), np.float32), rng.standard_normal((3, 4), np.float32)
    nearest, start = Nearest(queries, k), 0
    for size in sizes:
        nearest.add(np.arange(start, start + size), vectors[start : start + size])
        start += size
    expected = np.argsort(-(queries @ vectors.T), axis=1)[:, :k]
    assert np.array_equal(np.sort(nearest.read_items()), np.sort(expected))


def test_sampled_requests_have_the_newest_events_of_each_user():
    user, item = np.array([0, 0, 2, 2, 2], np.int32), np.array([5, 6, 7, 8, 9], np.int32)
    time = np.arange(5, dtype=np.int64) * 10
    events = Interactions(user, item, np.zeros(5, np.int8), time, np.ones(5, np.float32), 3, 10)
    requests = sample_requests(events)
    assert requests.user.tolist() == [0, 2] and requests.time.tolist() == [11, 41]
    assert requests.history.item[:, -3:].tolist() == [[-1, 5, 6], [7, 8, 9]]
    assert (requests.history.item[:, :-3] == -1).all() and (requests.history.weight[:, :-3] == 0).all()
