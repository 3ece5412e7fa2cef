"""Conjugate gradient steps of ALS: the kernel equals NumPy, steps lead to the minimum, none raises the objective."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from handsell.core.kernels import compiled
from handsell.retrieval import als_blocks
from handsell.retrieval.als_blocks import Penalty, compute_gram, improve_block, solve_block, update_block
from handsell.retrieval.models.als import ALSConfig, fit_als, raise_confidence
from handsell.testing.planted_taste import build_requests, plant_blocks
from server_programs import report_missing

PENALTY = Penalty(0.5, 1.0, unseen=4.0, typical=10.0)
SUMMED_APART = 512  # pairs, in core/kernels/descent.c


def draw_pairs(rng, rows: int = 40, columns: int = 30, weights=(1.0, 2.0, 5.0, -1.0), density: float = 0.3):
    """Added confidences; the first row is empty, the second has one pair, and the third all."""
    held = rng.random((rows, columns)) < density
    held[:3] = False
    held[1, 4] = held[2] = True
    weight = np.where(held, rng.choice(weights, held.shape), 0)
    pairs = sparse.csr_matrix(weight.astype(np.float32))
    pairs.data = raise_confidence(pairs.data, 5.0)
    return pairs


def draw_factors(rng, rows: int, size: int) -> np.ndarray:
    return (rng.standard_normal((rows, size)) / np.sqrt(size)).astype(np.float32)


def compute_objective(pairs, rows: np.ndarray, columns: np.ndarray, penalty: Penalty) -> np.ndarray:
    """The objective of each row (b,), in float64."""
    added, fitted = pairs.toarray().astype(np.float64), rows.astype(np.float64) @ columns.astype(np.float64).T
    errors = ((1 + np.abs(added)) * ((added > 0) - fitted) ** 2).sum(axis=1)
    return errors + penalty.for_counts(np.diff(pairs.indptr)) * (rows.astype(np.float64) ** 2).sum(axis=1)


@pytest.fixture
def require_kernel():
    if compiled is None:
        report_missing("the kernels were not built: no C compiler at installation")


@pytest.mark.parametrize("size", [3, 8, 20])
@pytest.mark.parametrize("weights", [(1.0, 2.0, -1.0), (1e-6, 1.0, 1e30, -1e30)])
def test_the_kernel_gives_what_numpy_gives(rng, monkeypatch, require_kernel, size, weights):
    """Within 2e-4 of the largest factor, on empty and full rows, rows of one pair and extreme weights."""
    pairs, other, start = draw_pairs(rng, weights=weights), draw_factors(rng, 30, size), draw_factors(rng, 40, size)
    total = compute_gram(other)
    for steps in (1, 2, 3):
        found = improve_block(pairs, other, total, PENALTY, start, steps)
        with monkeypatch.context() as without:
            without.setattr(als_blocks, "compiled", None)
            expected = improve_block(pairs, other, total, PENALTY, start, steps)
        assert found.dtype == expected.dtype == np.float32 and np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4 * np.abs(expected).max())
        assert not found[0].any() and not expected[0].any()  # without pairs


@pytest.mark.parametrize("count", [SUMMED_APART - 1, SUMMED_APART, SUMMED_APART + 1, 3 * SUMMED_APART + 5])
def test_long_rows_are_summed_in_blocks(rng, require_kernel, count):
    pairs = draw_pairs(rng, 4, count)
    other = draw_factors(rng, count, 8)
    total, start = compute_gram(other), np.zeros((4, 8), np.float32)
    found = improve_block(pairs, other, total, PENALTY, start, 8)
    assert np.allclose(found, solve_block(pairs, other, total, PENALTY), atol=1e-4)


@pytest.mark.parametrize("kernels", [True, False])
def test_threads_do_not_change_the_factors(rng, monkeypatch, kernels):
    """Bit for bit, with parts of a few rows."""
    monkeypatch.setattr(als_blocks, "compiled", compiled if kernels else None)
    monkeypatch.setattr(als_blocks, "WORK_AT_ONCE", 100)
    monkeypatch.setattr(als_blocks, "ROWS_AT_ONCE", 7)
    pairs, other, start = draw_pairs(rng, 300), draw_factors(rng, 30, 6), draw_factors(rng, 300, 6)
    assert len(als_blocks._cut_rows(pairs.indptr)) > 10
    alone, together = (
        improve_block(pairs, other, compute_gram(other, threads), PENALTY, start, 2, threads) for threads in (1, 3)
    )
    assert np.array_equal(alone, together) and not np.allclose(alone, start)
    whole = improve_block(pairs, other, other.T.astype(np.float64) @ other, PENALTY, start, 8)
    assert np.allclose(whole, solve_block(pairs, other, compute_gram(other), PENALTY), atol=1e-3)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_a_part_is_raised(threads):
    def fail(first: int, last: int) -> int:
        if first == 2:
            raise MemoryError("part 2")
        return first

    with pytest.raises(MemoryError, match="part 2"):
        list(als_blocks.run_parts(fail, range(6), threads))
    assert list(als_blocks.run_parts(lambda first, last: first, range(6), threads)) == [0, 1, 2, 3, 4]


def test_a_blas_that_does_not_tell_its_threads_has_one(monkeypatch):
    for told, expected in (([None], 1), ([None, 3], 3), ([], 1)):
        blas = SimpleNamespace(lib_controllers=[SimpleNamespace(num_threads=n) for n in told])
        monkeypatch.setattr(als_blocks, "_find_blas", lambda blas=blas: blas)
        assert als_blocks.count_threads() == expected


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (1, 5), (3, 0)])
def test_blocks_without_rows_or_columns(monkeypatch, kernels, rows, columns):
    monkeypatch.setattr(als_blocks, "compiled", compiled if kernels else None)
    pairs = sparse.csr_matrix((rows, columns), dtype=np.float32)
    other, start = np.zeros((columns, 3), np.float32), np.ones((rows, 3), np.float32)
    for steps in (0, 2):
        found = update_block(pairs, other, compute_gram(other, 2), PENALTY, start, steps, 2)
        assert found.dtype == np.float32 and np.array_equal(found, np.zeros((rows, 3)))


def test_the_kernel_refuses_what_does_not_fit(require_kernel):
    def improve(offsets=(0, 1), columns=(0,), size=8):
        x = np.zeros((1, size), np.float32)
        compiled.improve_rows(
            np.array(offsets, np.int64), np.array(columns, np.int32), np.ones(len(columns), np.float32),
            np.ones((2, size), np.float32), np.ones(size, np.float32), np.ones(1, np.float32), x, 1,
        )  # fmt: skip
        return x

    assert improve().all()
    for wrong in ({"offsets": (0, 2)}, {"offsets": (0,)}, {"offsets": (1, 0)}, {"columns": (2,)}, {"size": 7}):
        with pytest.raises(ValueError, match="expected rows of pairs"):
            improve(**wrong)


@pytest.mark.parametrize("kernels", [True, False])
def test_a_row_with_one_pair_is_solved_by_two_steps(rng, monkeypatch, kernels):
    """The preconditioned system of a row with n pairs has n + 1 different eigenvalues at most."""
    monkeypatch.setattr(als_blocks, "compiled", compiled if kernels else None)
    pairs, other, start = draw_pairs(rng), draw_factors(rng, 30, 16), draw_factors(rng, 40, 16)
    total = compute_gram(other)
    found, exact = improve_block(pairs, other, total, PENALTY, start, 2), solve_block(pairs, other, total, PENALTY)
    assert np.allclose(found[1], exact[1], atol=1e-4)
    assert not np.allclose(found[2], exact[2], atol=1e-4)  # this one has 30 pairs


@pytest.mark.parametrize("kernels", [True, False])
def test_many_steps_lead_to_the_exact_factors(rng, monkeypatch, kernels):
    monkeypatch.setattr(als_blocks, "compiled", compiled if kernels else None)
    pairs, other = draw_pairs(rng), draw_factors(rng, 30, 8)
    total, start = compute_gram(other), np.zeros((40, 8), np.float32)
    exact = update_block(pairs, other, total, PENALTY, start, 0)
    assert np.allclose(update_block(pairs, other, total, PENALTY, start, 20), exact, atol=1e-4)
    assert np.array_equal(exact, solve_block(pairs, other, total, PENALTY))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kernels", [True, False])
def test_no_half_sweep_raises_the_objective_of_a_row(monkeypatch, kernels, seed):
    monkeypatch.setattr(als_blocks, "compiled", compiled if kernels else None)
    rng = np.random.default_rng(seed)
    pairs = draw_pairs(rng, weights=(0.01, 1.0, 100.0, -3.0), density=rng.uniform(0.02, 0.9))
    sides = [pairs, pairs.T.tocsr()]
    factors = [draw_factors(rng, side.shape[0], 8) for side in sides]
    steps = int(rng.integers(1, 4))
    for half in range(6):
        mine, other = half % 2, 1 - half % 2
        before = compute_objective(sides[mine], factors[mine], factors[other], PENALTY)
        total = compute_gram(factors[other])
        factors[mine] = update_block(sides[mine], factors[other], total, PENALTY, factors[mine], steps)
        after = compute_objective(sides[mine], factors[mine], factors[other], PENALTY)
        assert (after <= before * (1 + 1e-5)).all() and after.sum() < before.sum()


def test_a_fit_without_kernels_gives_the_same_scores(rng, monkeypatch):
    events, _ = plant_blocks(rng)
    config, every = ALSConfig(embedding_size=6, epochs=3), np.arange(events.n_items)[None]
    with_kernels = fit_als(events, config)
    monkeypatch.setattr(als_blocks, "compiled", None)
    without = fit_als(events, config)
    asked = build_requests([(0, 1.0), (4, 2.0), (9, -1.0)])
    assert np.allclose(with_kernels.score(asked, every), without.score(asked, every), atol=1e-3, equal_nan=True)


def test_fits_by_steps_come_to_the_exact_fit(rng):
    events, _ = plant_blocks(rng)
    every, asked = np.arange(events.n_items)[None], build_requests([(0, 1.0), (4, 2.0), (9, -1.0)])
    exact, stepwise, rough = (
        fit_als(events, ALSConfig(embedding_size=6, epochs=4, cg_steps=steps)).score(asked, every)
        for steps in (0, 8, 1)
    )
    assert np.allclose(stepwise, exact, atol=2e-3, equal_nan=True)
    assert not np.allclose(rough, exact, atol=2e-3, equal_nan=True)
