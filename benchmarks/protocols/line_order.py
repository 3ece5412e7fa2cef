"""Whether the items of a line are in the order of time, found from the lines alone.

Two figures tell, measured on one half of the lines with what the other half says about items:

recency   Rank correlation of the places in a line with the similarity of the items to the line's last one (cosine of
          their lines). The mean is 0 if the order was drawn by chance, and above 0 if people move on by and by.
fixed     Share of the variance of places that the item alone explains, by its mean place in other lines of similar
          length. It is near 1 for lines sorted by a number, a name or popularity, and high for those in the order of a
          hash table, which depends on their length. Such lines may have recency without telling what comes next.

Lines are in the order of time if recency is above 0 and places depend on the line rather than on the item: `fixed` is
below one half. The bounds of 99.9 % intervals over lines decide, so that lines that say too little have no order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.stats import rankdata
from scipy.stats import t as student

from handsell.core.batches import Ragged
from handsell.retrieval.index.topk import pad_rows
from handsell.retrieval.sparse_rows import read_entries

CONFIDENCE = 0.999
MAX_FIXED = 0.5
MAX_LINES = 4_000  # measured, drawn by chance
LAST = 100  # items measured of a line
LEAST = 3  # items before the last one, for a line to be measured; lines with an item, for its mean place
AT_ONCE = 256  # lines


Correlation = tuple[float, int]  # of the items of a line, and their number


@dataclass(frozen=True, slots=True)
class Interval:
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


UNKNOWN = Interval(0.0, -1.0, 1.0)


@dataclass(frozen=True, slots=True)
class LineOrder:
    """What the lines say about their order."""

    lines: int  # measured
    recency: Interval
    fixed: Interval

    @property
    def is_time(self) -> bool:
        return self.recency.low > 0 and self.fixed.high < MAX_FIXED

    def __str__(self) -> str:
        if self.is_time:
            verdict = "time"
        elif self.recency.low <= 0:
            verdict = "none, recency is not shown to be above 0"
        else:
            verdict = "none, places depend on the item rather than on the line"
        return (
            f"order of the lines: {verdict} (recency {self.recency}, places explained by the item {self.fixed}, "
            f"{self.lines:,} lines)"
        )


@dataclass(frozen=True, slots=True)
class ItemTables:
    """What one half of the lines says about I items."""

    holds: sparse.csr_matrix  # (lines, I) float32, 1 where a line has the item
    by_item: sparse.csr_matrix  # its transpose
    count: np.ndarray  # (I,) lines
    place: np.ndarray  # (octaves, I) mean relative place by octave of the line's length; NaN with too few lines

    def find_usual_places(self, line: np.ndarray) -> np.ndarray:
        """Return the mean relative places of a line's items in other lines, where known."""
        octave = _find_octave(len(line))
        usual = self.place[octave, line] if octave < len(self.place) else np.zeros(0)
        return usual[~np.isnan(usual)]


def find_line_order(rows: Sequence[np.ndarray], n_items: int, seed: int = 0) -> LineOrder:
    """Measure lines of item numbers; repeated items count at their last place."""
    lines = [row for row in (_drop_repeats(row) for row in rows) if len(row) > LEAST]
    shuffled = np.random.default_rng(seed).permutation(len(lines))
    half = len(lines) // 2
    if not half:
        return LineOrder(0, UNKNOWN, UNKNOWN)
    tables = _describe_items([lines[i] for i in shuffled[:half]], n_items)
    tested = [lines[i] for i in shuffled[half:][:MAX_LINES]]
    place = estimate_mean([_correlate_with_place(tables.find_usual_places(line)) for line in tested])
    similar = _correlate_similarity(tested, tables)
    fixed = Interval(*(min(max(value, 0.0), 1.0) ** 2 for value in (place.mean, place.low, place.high)))
    return LineOrder(len(similar), estimate_mean(similar), fixed)


def _drop_repeats(row: np.ndarray) -> np.ndarray:
    _, from_end = np.unique(row[::-1], return_index=True)
    return row[np.sort(len(row) - 1 - from_end)]


def _find_octave(length: np.ndarray | int) -> np.ndarray:
    return np.log2(length).astype(np.int64)


def _describe_items(lines: Sequence[np.ndarray], n_items: int) -> ItemTables:
    flat = Ragged.from_rows(lines)
    line = flat.row_of_value
    length = flat.lengths[line]
    place = (np.arange(len(line)) - flat.offsets[line] + 0.5) / length
    cell = _find_octave(length) * n_items + flat.values
    shape = (int(_find_octave(flat.lengths.max())) + 1, n_items)
    count = np.bincount(cell, minlength=shape[0] * n_items)
    total = np.bincount(cell, place, minlength=len(count))
    mean = np.where(count >= LEAST, total / np.maximum(count, 1), np.nan).reshape(shape)
    holds = sparse.csr_matrix((np.ones(len(line), np.float32), flat.values, flat.offsets), (len(lines), n_items))
    return ItemTables(holds, holds.T.tocsr(), np.bincount(flat.values, minlength=n_items), mean)


def _correlate_similarity(lines: Sequence[np.ndarray], tables: ItemTables) -> list[Correlation]:
    """Return the rank correlation of places with similarity to the last item, by line."""
    found = []
    known = [line[tables.count[line] > 0][-LAST:] for line in lines]
    known = [line for line in known if len(line) > LEAST]
    for start in range(0, len(known), AT_ONCE):
        some = known[start : start + AT_ONCE]
        together = (tables.by_item[[line[-1] for line in some]] @ tables.holds).tocsr()
        before, _ = pad_rows([(line[:-1], line[:-1]) for line in some], LAST)
        common = read_entries(together, before, tables.count > 0)
        for line, lines_in_common in zip(some, common, strict=True):
            similarity = lines_in_common[: len(line) - 1] / np.sqrt(tables.count[line[:-1]])
            found.append(_correlate_with_place(similarity))
    return [one for one in found if one is not None]


def _correlate_with_place(values: np.ndarray) -> Correlation | None:
    """Return the rank correlation of values (n,) with their own places, and n; None if too few, or all are equal."""
    if len(values) < LEAST or values.min() == values.max():
        return None
    return float(np.corrcoef(rankdata(values), np.arange(len(values)))[0, 1]), len(values)


def estimate_mean(found: Sequence[Correlation | None]) -> Interval:
    """Return the mean rank correlation over lines, weighted by length - 1, and its interval.

    The standard error is that of the lines, and at least that of orders drawn by chance, 1 / sqrt(length - 1) each.
    """
    value, length = np.array([one for one in found if one is not None]).reshape(-1, 2).T
    if len(value) < 2:
        return UNKNOWN
    weight = length - 1
    mean = float(weight @ value / weight.sum())
    spread = np.sqrt((weight**2) @ (value - mean) ** 2) / weight.sum()
    error = max(float(spread), float(weight.sum() ** -0.5)) * float(student.ppf((1 + CONFIDENCE) / 2, len(value) - 1))
    return Interval(mean, mean - error, mean + error)
