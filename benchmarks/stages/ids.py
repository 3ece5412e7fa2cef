"""Memory and lookup time of a vocabulary of ids, beside fixed-width NumPy strings and a dictionary.

    python -m benchmarks ids --ids 1000000

`file`: bytes per id of the mapped files (of the dictionary: of its objects in one process), without and with one id of
20,000 characters. `number` and `ids`: shortest CPU time of a lookup of 1, 100 and 10,000 ids, and of the way back.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import write_report
from handsell.catalog.vocabulary import Vocabulary

LONG = "x" * 20_000
BATCHES = (1, 100, 10_000)


class FixedWidth:
    """All ids as wide as the longest one, and a binary search: the form before Arrow strings."""

    def __init__(self, ids: Sequence[str]):
        self.encoded = np.array([i.encode() for i in ids])
        self.order = np.argsort(self.encoded, kind="stable").astype(np.int32)

    def number(self, ids: Sequence[str]) -> np.ndarray:
        wanted = np.array([i.encode() for i in ids])
        found = self.order[np.minimum(np.searchsorted(self.encoded, wanted, sorter=self.order), len(self.order) - 1)]
        return np.where(self.encoded[found] == wanted, found, -1)

    def ids(self, numbers: np.ndarray) -> list[str]:
        return [raw.decode() for raw in self.encoded[numbers].tolist()]

    @property
    def size(self) -> int:
        return self.encoded.nbytes + self.order.nbytes


class Dictionary:
    """A Python dictionary and a list, in every process."""

    def __init__(self, ids: Sequence[str]):
        self.names, self.numbers = list(ids), {name: number for number, name in enumerate(ids)}

    def number(self, ids: Sequence[str]) -> np.ndarray:
        return np.array([self.numbers.get(name, -1) for name in ids], np.int32)

    def ids(self, numbers: np.ndarray) -> list[str]:
        return [self.names[number] for number in numbers.tolist()]

    @property
    def size(self) -> int:
        own = sys.getsizeof(self.names) + sys.getsizeof(self.numbers)
        return own + sum(sys.getsizeof(name) + sys.getsizeof(number) for name, number in self.numbers.items())


class Mapped:
    """The vocabulary, mapped from its files."""

    def __init__(self, ids: Sequence[str]):
        self._folder = tempfile.TemporaryDirectory()
        Vocabulary.of(ids).save(Path(self._folder.name))
        known = Vocabulary.load(Path(self._folder.name))
        self.number, self.ids = known.number, known.ids

    @property
    def size(self) -> int:
        return sum(file.stat().st_size for file in Path(self._folder.name).iterdir())


def main() -> None:
    options = _parse_options()
    ids = [f"user-{number:08d}" for number in range(options.ids)]
    rows = [measure(kind, ids) for kind in (FixedWidth, Dictionary, Mapped)]
    write_report("ids", rows, {"ids": options.ids}, options.json)


def measure(kind: type[FixedWidth] | type[Dictionary] | type[Mapped], ids: list[str]) -> dict[str, Any]:
    begun = time.process_time()
    known = kind(ids)
    row: dict[str, Any] = {"form": kind.__name__, "build s": time.process_time() - begun}
    row["file B/id"] = known.size / len(ids)
    # fixed-width strings with the long id would not fit in memory: their size is computed
    wide = len(LONG) + 4.0 if kind is FixedWidth else kind([*ids, LONG]).size / len(ids)
    row["one long id B/id"] = wide
    rng = np.random.default_rng(1)
    for size in BATCHES:
        numbers = rng.integers(0, len(ids), size)
        asked = [ids[number] for number in numbers]
        assert known.number(asked).tolist() == numbers.tolist()
        assert known.ids(numbers) == asked
        row[f"number {size:,} µs"] = measure_us(lambda asked=asked: known.number(asked))  # type: ignore[misc]
        row[f"ids {size:,} µs"] = measure_us(lambda numbers=numbers: known.ids(numbers))  # type: ignore[misc]
    return row


def measure_us(call: Callable[[], object], runs: int = 50) -> float:
    """Return the shortest CPU time of several calls."""
    times = []
    for _ in range(runs):
        begun = time.process_time()
        call()
        times.append(time.process_time() - begun)
    return 1e6 * min(times)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ids", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--ids", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, default=None, help="output file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
