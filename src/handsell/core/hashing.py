"""Reproducible pseudorandom numbers by hash: the same keys give the same numbers in every run."""

from __future__ import annotations

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's increment


def mix(x: np.ndarray) -> np.ndarray:
    """Return the next output of SplitMix64 for state x (uint64, any shape)."""
    return finalize(x + GOLDEN)


def finalize(x: np.ndarray) -> np.ndarray:
    """Apply SplitMix64's finalizer (@steele2014splittable) to uint64: one input bit flips half of the output bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(seed: int, *keys: np.ndarray) -> np.ndarray:
    """Hash parallel integer keys (N,) to (N,) float64 in [0, 1); different seeds give independent numbers."""
    mixed = np.full(len(keys[0]), seed, np.uint64)
    for key in keys:
        mixed = mix(mixed ^ mix(key.astype(np.int64).view(np.uint64)))
    return (mixed >> np.uint64(11)) * 2.0**-53
