"""Paired bootstrap over users: is one model better than another, worse, or is it undecided?

Requests of one user are not independent, so the bootstrap draws users, each with all of their requests; an unknown
user (-1) is a cluster of one request. The outcome is undecided if the 95 % interval of the difference includes 0, or if
there are fewer than `MIN_USERS` users, for whom a percentile interval is too narrow.
Sources: sakai2006bootstrap (paired bootstrap of per-request scores), field2007clusters (drawing clusters).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import numpy as np

RESAMPLES = 2_000
TAILS = (0.025, 0.975)  # of the 95 % interval
MIN_USERS = 10
CELLS = 4_000_000  # draws in memory at a time

Key = TypeVar("Key", bound=Hashable)
Outcome = Literal["beats", "loses", "undecided"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A challenger compared with a baseline on the requests for which both have a value."""

    outcome: Outcome
    difference: float  # challenger − baseline, mean per request
    low: float
    high: float  # the 95 % interval of the difference
    relative: float  # difference / baseline; NaN where the baseline is 0
    relative_low: float
    relative_high: float
    challenger: float
    baseline: float
    requests: int
    users: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, with None for values that are not finite."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean over requests and its 95 % interval; NaN if no request has a value."""

    mean: float
    low: float
    high: float
    requests: int


def compare(
    challenger: np.ndarray, baseline: np.ndarray, users: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Compare per-request values (R,), NaN for none, with users (R,) as clusters."""
    return compare_all({"": challenger}, baseline, users, resamples=resamples, seed=seed)[""]


def compare_all(
    challengers: Mapping[Key, np.ndarray],
    baseline: np.ndarray,
    users: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[Key, Comparison]:
    """Compare several challengers with one baseline, as `compare` does."""
    pairs = {name: (values, baseline) for name, values in challengers.items()}
    return compare_pairs(pairs, users, resamples=resamples, seed=seed)


def compare_pairs(
    pairs: Mapping[Key, tuple[np.ndarray, np.ndarray]],
    users: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[Key, Comparison]:
    """Compare several pairs (challenger, baseline), as `compare` does.

    Pairs with values for the same requests share the draws. Raises ValueError if lengths differ.
    """
    groups: dict[bytes, list[Key]] = {}
    for name, (challenger, baseline) in pairs.items():
        if not len(challenger) == len(baseline) == len(users):
            raise ValueError(
                f"expected one value per request; got {len(challenger)} values of the challenger, {len(baseline)} of "
                f"the baseline and {len(users)} users: score all on the same requests"
            )
        groups.setdefault((np.isfinite(challenger) & np.isfinite(baseline)).tobytes(), []).append(name)
    found: dict[Key, Comparison] = {}
    for key, names in groups.items():
        both = np.frombuffer(key, bool)
        challengers, baselines = (
            np.stack([np.asarray(pairs[n][side], float)[both] for n in names], axis=1) for side in (0, 1)
        )
        found |= zip(names, _compare(challengers, baselines, users[both], resamples, seed), strict=True)
    return {name: found[name] for name in pairs}


def estimate_means(
    values: Mapping[str, np.ndarray], users: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Mean]:
    """Return the mean of each array of per-request values (R,) with its interval."""
    zero = np.zeros(len(users))
    against = compare_all(values, zero, users, resamples=resamples, seed=seed)
    return {name: Mean(c.challenger, c.low, c.high, c.requests) for name, c in against.items()}


def _compare(
    challengers: np.ndarray, baselines: np.ndarray, users: np.ndarray, resamples: int, seed: int
) -> list[Comparison]:
    """Return one comparison for each column of challengers and baselines (R, M)."""
    nan = float("nan")
    if not len(users):
        return [Comparison("undecided", nan, nan, nan, nan, nan, nan, nan, nan, 0, 0) for _ in challengers.T]
    many = challengers.shape[1]
    sums, counts = sum_by_user(np.concatenate([challengers - baselines, baselines], axis=1), users)
    drawn = draw_sums(np.concatenate([sums, counts[:, None]], axis=1), resamples, seed)
    difference, base, size = drawn[:, :many], drawn[:, many:-1], drawn[:, -1:]
    low, high = np.quantile(difference / size, TAILS, axis=0).tolist()
    ratio = np.divide(difference, base, out=np.full(base.shape, nan), where=base > 0)
    relative_low, relative_high = np.quantile(ratio, TAILS, axis=0).tolist()
    ours, theirs = challengers.mean(axis=0).tolist(), baselines.mean(axis=0).tolist()
    return [
        Comparison(
            outcome=_decide(low[m], high[m], len(counts)),
            difference=ours[m] - theirs[m], low=low[m], high=high[m],
            relative=(ours[m] - theirs[m]) / theirs[m] if theirs[m] > 0 else nan,
            relative_low=relative_low[m], relative_high=relative_high[m],
            challenger=ours[m], baseline=theirs[m], requests=len(users), users=len(counts),
        )
        for m in range(many)
    ]  # fmt: skip


def _decide(low: float, high: float, users: int) -> Outcome:
    if users < MIN_USERS or low <= 0 <= high:
        return "undecided"
    return "beats" if low > 0 else "loses"


def sum_by_user(values: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sums (U, M) and counts (U,) of values (R, M) per user; each unknown user (-1) counts as another one."""
    clusters = np.where(users < 0, -1 - np.arange(len(users)), users)
    distinct, at = np.unique(clusters, return_inverse=True)
    sums = np.stack([np.bincount(at, weights=column, minlength=len(distinct)) for column in values.T], axis=1)
    return sums, np.bincount(at, minlength=len(distinct)).astype(float)


def draw_sums(rows: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return (resamples, M): each the sum of U rows (U, M) drawn with replacement."""
    rng = np.random.default_rng(seed)
    size, chunk, out = len(rows), max(1, CELLS // len(rows)), []
    for start in range(0, resamples, chunk):
        many = min(chunk, resamples - start)
        picked = rng.integers(0, size, (many, size)) + np.arange(many)[:, None] * size
        times = np.bincount(picked.ravel(), minlength=many * size).reshape(many, size)
        out.append(times @ rows)
    return np.concatenate(out)
