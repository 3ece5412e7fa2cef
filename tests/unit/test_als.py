"""ALS: steps solve the normal equations, sweeps equal those of `implicit`, fold-in is the same step."""

import numpy as np
import pytest
from scipy import sparse

from handsell.retrieval import als_blocks
from handsell.retrieval.als_blocks import Penalty, compute_gram, diagonalize, solve_block
from handsell.retrieval.history_weights import HistoryWeights
from handsell.retrieval.models.als import ALSConfig, ALSEncoder, compute_confidence, fit_als, sum_weights
from handsell.testing.planted_taste import build_requests, plant_blocks

FLAT = Penalty(size=0.1, exponent=0.0, unseen=1.0, typical=1.0)


def signed(rng, rows=30, columns=20, density=0.3) -> sparse.csr_matrix:
    """Random event weights, some of them dislikes; the last row is empty."""
    weight = sparse.random(rows, columns, density, "csr", rng=rng, dtype=np.float32)
    weight.data = rng.choice([1.0, 2.0, 5.0, -1.0], weight.nnz).astype(np.float32)
    dense = weight.toarray()
    dense[-1] = 0
    return sparse.csr_matrix(dense)


@pytest.mark.parametrize("width", [3, 16])  # rows are solved by factors, or by their pairs
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_a_row_solves_its_normal_equations(rng, width, exponent):
    pairs = compute_confidence(signed(rng), 5.0)
    y = rng.standard_normal((20, width)).astype(np.float32)
    penalty = Penalty(0.5, exponent, unseen=4.0, typical=10.0)
    found = solve_block(pairs, y, compute_gram(y), penalty)
    for u, row in enumerate(pairs.toarray().astype(np.float64)):
        n = np.count_nonzero(row)
        c = 1 + np.abs(row)
        left = (y.T * c) @ y + 0.5 * ((n + 4.0) / 10.0) ** exponent * np.eye(width)
        assert np.allclose(found[u], np.linalg.solve(left, y.T @ (c * (row > 0))), atol=2e-4)


def test_blocks_and_stacks_do_not_change_a_row(rng, monkeypatch):
    pairs = compute_confidence(signed(rng), 5.0)
    y = rng.standard_normal((20, 8)).astype(np.float32)
    whole = solve_block(pairs, y, compute_gram(y), FLAT)
    monkeypatch.setattr(als_blocks, "FLOATS_AT_ONCE", 200)
    halves = [solve_block(part, y, compute_gram(y), FLAT) for part in (pairs[:11], pairs[11:])]
    assert np.allclose(np.concatenate(halves), whole, atol=1e-5)


def test_sweeps_give_the_factors_of_implicit(rng):
    from implicit.cpu.als import AlternatingLeastSquares

    weight = signed(rng, 60, 40)
    pairs = compute_confidence(weight, 5.0)
    first = rng.standard_normal((40, 6)).astype(np.float32)
    oracle = AlternatingLeastSquares(
        factors=6, regularization=0.1, alpha=1.0, iterations=5, use_cg=False, num_threads=1
    )
    oracle.item_factors, oracle.user_factors = first.copy(), np.zeros((60, 6), np.float32)
    confident = pairs.copy()
    confident.data = pairs.data + np.sign(pairs.data)  # implicit's entries are c, with the sign of the preference
    oracle.fit(confident, show_progress=False)
    items = first
    for _ in range(5):
        users = solve_block(pairs, items, compute_gram(items), FLAT)
        items = solve_block(pairs.T.tocsr(), users, compute_gram(users), FLAT)
    assert np.allclose(users, oracle.user_factors, atol=2e-3)
    assert np.allclose(users @ items.T, oracle.user_factors @ oracle.item_factors.T, atol=2e-3)


def test_fold_in_equals_the_user_factors_of_implicit(rng):
    from implicit.cpu.als import AlternatingLeastSquares

    vectors = rng.standard_normal((20, 6)).astype(np.float32)
    values, turn = diagonalize(compute_gram(vectors))
    encoder = ALSEncoder(vectors @ turn, values, FLAT, alpha=5.0, weights=HistoryWeights(1e9))
    history = [(3, 1.0), (7, 2.0), (3, 1.0), (9, -1.0)]
    folded = encoder.encode(build_requests(history))[0] @ turn.T
    weight = np.array([2.0, 2.0, -1.0])  # of items 3, 7, 9
    entries = np.sign(weight) * (1 + 5.0 * np.log1p(np.abs(weight)))
    row = sparse.csr_matrix((entries.astype(np.float32), [3, 7, 9], [0, 3]), shape=(1, 20))
    solver = AlternatingLeastSquares(factors=6, regularization=0.1, num_threads=1)
    solver.item_factors = vectors
    assert np.allclose(folded, solver.recalculate_user(0, row), atol=1e-4)


def test_old_likes_have_less_weight():
    vectors = np.eye(4, dtype=np.float32)
    encoder = ALSEncoder(vectors, np.ones(4, np.float32), FLAT, alpha=5.0, weights=HistoryWeights(1.0))
    asked = build_requests([(0, 1.0), (1, 1.0)])
    asked.history.time[0, -2] -= 10 * 86_400_000_000
    old, new = encoder.encode(asked)[0, :2]
    assert 0 < old < new


def test_the_penalty_grows_with_evidence_and_keeps_its_mean():
    counts = np.array([1, 5, 30])
    scaled = Penalty.from_counts(counts, others=100, alpha=10.0, reg=0.01, exponent=1.0)
    assert np.allclose(scaled.for_counts(counts), 0.01 * (10.0 * counts + 100), rtol=1e-6)
    flat = Penalty.from_counts(counts, others=100, alpha=10.0, reg=0.01, exponent=0.0)
    assert np.allclose(flat.for_counts(counts), scaled.for_counts(counts).mean())


def test_a_spectral_start_has_less_loss_than_a_random_one(rng):
    """The loss after one sweep."""
    events, _ = plant_blocks(rng)
    pairs = compute_confidence(sum_weights(events), 10.0)
    started = fit_als(events, ALSConfig(embedding_size=4, epochs=1)).vectors
    noise = rng.standard_normal(started.shape).astype(np.float32) * 0.01
    users = solve_block(pairs, noise, compute_gram(noise), FLAT)
    random = solve_block(pairs.T.tocsr(), users, compute_gram(users), FLAT)

    def loss(items):
        fitted = solve_block(pairs, items, compute_gram(items), FLAT) @ items.T
        dense = pairs.toarray()
        return ((1 + np.abs(dense)) * ((dense > 0) - fitted) ** 2).sum()

    assert loss(started) < loss(random)


def test_the_same_seed_gives_the_same_factors_and_untouched_items_stay_zero(rng):
    events, _ = plant_blocks(rng)
    one, two = (fit_als(events, ALSConfig(embedding_size=4, seed=3)) for _ in range(2))
    assert np.array_equal(one.vectors, two.vectors)
    assert not one.vectors[-8:].any() and one.vectors[:60].any(axis=1).mean() > 0.9


@pytest.mark.parametrize("parts", [1, 3])
def test_blocks_on_ray_give_the_local_model(rng, ray_cluster, tmp_path, configured, parts):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from handsell.jobs.train.distributed.als import fit
    from handsell.jobs.train.windows import CatalogSizes
    from handsell.retrieval.models.als import ALS

    events, _ = plant_blocks(rng)
    for part in range(parts):
        mine = events.where(events.user % parts == part)
        columns = {name: getattr(mine, name) for name in ("user", "item", "type", "time", "weight")}
        pq.write_table(pa.table(columns), tmp_path / f"part-0000{part}.parquet")
    config = configured('name = "planted"\n[retrieval.als]\nembedding_size = 8\nblocks = 3\nepochs = 4\n')
    fit(config, tmp_path, tmp_path, CatalogSizes(events.n_users, events.n_items), tmp_path / "out")
    far, near = ALS.load(tmp_path / "out"), fit_als(events, config.retrieval["als"])
    every = np.arange(events.n_items)[None]
    asked = build_requests([(0, 1.0), (4, 2.0), (9, -1.0)])
    assert np.allclose(far.score(asked, every), near.score(asked, every), atol=1e-3, equal_nan=True)
