"""Results with the compiled kernels beside those of the NumPy code."""

import numpy as np


def check_equal(monkeypatch, module, compute):
    """Compute with the kernels and without them; the results are equal."""
    found = compute()
    monkeypatch.setattr(module, "compiled", None)
    expected = compute()
    monkeypatch.undo()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.asarray(one).dtype == np.asarray(other).dtype
