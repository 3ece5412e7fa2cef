"""External string ids ↔ permanent numbers: append-only, memory mapped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from zlib import crc32

import numpy as np
import pyarrow as pa

from handsell.core.batches import NONE
from handsell.core.errors import DataError
from handsell.core.kernels import compiled

REMAINDERS = np.array([~crc32(bytes([n ^ 0xFF])) ^ 0x00FFFFFF for n in range(256)], np.int64).astype(np.int32)
"""The table of CRC-32 for `number_texts`: (256,) remainders, one for each byte."""
NO_TEXT = np.zeros(0, np.int8)
FEW = 10  # ids that are read one by one faster than by one call of Arrow


class Numbering(Protocol):
    """Ids by number and back, such as a Vocabulary."""

    def number(self, ids: Sequence[str]) -> np.ndarray: ...

    def ids(self, numbers: np.ndarray) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """N ids; an id's number is its position and never changes.

    The texts follow each other in one buffer: memory is the UTF-8 of all ids and 12 bytes per id, whatever the longest
    id is. Replicas share one mapped copy, while a dictionary would need about 100 bytes per id in every process. A
    lookup is a binary search among the hashes, then a comparison of the ids.
    """

    texts: pa.StringArray | pa.LargeStringArray  # (N,) by number
    hashes: np.ndarray  # (N,) uint32 ascending
    order: np.ndarray  # (N,) int32 number of each hash
    _arrays: tuple[np.ndarray, ...] | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, ids: Iterable[str]) -> Vocabulary:
        """Number ids in the order given; a repeated id keeps its first number."""
        unique = list(dict.fromkeys(ids))
        return cls._build(_to_array(unique), _hash(unique))

    @classmethod
    def _build(cls, texts: pa.Array, hashes: np.ndarray) -> Vocabulary:
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        short = texts.nbytes < 2**31  # offsets of 4 bytes are enough
        return cls(texts.cast(pa.string()) if short else texts, hashes[order], order)

    def __len__(self) -> int:
        return len(self.order)

    def number(self, ids: Sequence[str]) -> np.ndarray:
        """(M,) int32 numbers, -1 for unknown ids."""
        found = np.full(len(ids), NONE, np.int32)
        if not len(self) or not len(ids):
            return found
        if compiled is not None and self._number_compiled(ids, found):
            return found
        wanted, last = _hash(ids), len(self) - 1
        place = np.minimum(np.searchsorted(self.hashes, wanted), last)
        if self.ids(first := self.order[place]) == list(ids):
            return first  # all are known, and no other has the hash of one
        row = np.arange(len(ids))
        while len(row):  # more than once only for ids of equal hash
            number = self.order[place]
            pairs = zip(self.ids(number), row.tolist(), strict=True)
            equal = np.fromiter((text == ids[r] for text, r in pairs), bool, len(row))
            found[row[equal]] = number[equal]
            again = ~equal & (self.hashes[place] == wanted[row]) & (place < last)
            row, place = row[again], place[again] + 1
        return found

    def _number_compiled(self, ids: Sequence[str], found: np.ndarray) -> bool:
        """Write the numbers to `found` (M,); return False for ids that are no valid text, or beyond 2 GiB of texts."""
        arrays = self.find_arrays()
        return arrays is not None and compiled.number_texts(ids if isinstance(ids, list) else list(ids), *arrays, found)

    def find_arrays(self) -> tuple[np.ndarray, ...] | None:
        """Return what kernels look ids up in (texts.h): five arrays; None beyond 2 GiB of texts."""
        if self._arrays is None:
            buffers = self._find_buffers() if len(self) else (np.zeros(1, np.int32), NO_TEXT)
            if buffers is None:
                return None
            hashes = np.ascontiguousarray(self.hashes, np.uint32).view(np.int32)
            arrays = REMAINDERS, hashes, np.ascontiguousarray(self.order, np.int32), *buffers
            object.__setattr__(self, "_arrays", arrays)
        return self._arrays

    def _find_buffers(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return where each text begins and ends (N + 1,) int32, and all texts as int8; None beyond 2 GiB."""
        texts = self.texts
        if not len(texts) or not pa.types.is_string(texts.type):
            return None
        _, offsets, characters = texts.buffers()
        begin = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        return begin, NO_TEXT if not characters else np.frombuffer(characters, np.int8)

    def ids(self, numbers: np.ndarray) -> list[str]:
        """Return the ids of numbers (M,) ≥ 0; raises ValueError or IndexError for a number beyond the last."""
        if compiled is not None and (buffers := self._find_buffers()) is not None:
            return compiled.read_texts(*buffers, np.ascontiguousarray(numbers, np.int64))
        if len(numbers) <= FEW:
            return [self.texts[number].as_py() for number in np.asarray(numbers).tolist()]
        return self.texts.take(pa.array(np.asarray(numbers, np.int64))).to_pylist()

    def extend(self, ids: Iterable[str]) -> Vocabulary:
        """Return a vocabulary with the unknown ones of `ids` appended; existing numbers do not change."""
        fresh = list(dict.fromkeys(ids))
        fresh = [i for i, n in zip(fresh, self.number(fresh), strict=True) if n == NONE]
        if not fresh:
            return self
        hashes = np.empty(len(self) + len(fresh), np.uint32)
        hashes[self.order], hashes[len(self) :] = self.hashes, _hash(fresh)
        return self._build(pa.concat_arrays([self.texts.cast(pa.large_string()), _to_array(fresh)]), hashes)

    def starts_with(self, other: Vocabulary) -> bool:
        """Return whether the first ids are those of the other vocabulary, in the same order."""
        return self.texts.slice(0, len(other)).equals(other.texts)

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        with pa.OSFile(str(path / "ids.arrow"), "wb") as sink:
            batch = pa.record_batch([self.texts], names=["id"])
            with pa.ipc.new_file(sink, batch.schema) as out:
                out.write_batch(batch)
        np.save(path / "hashes.npy", self.hashes)
        np.save(path / "order.npy", self.order)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Map the files read-only; plain arrays, because indexing `np.memmap` is slower."""
        if not (path / "ids.arrow").is_file():
            raise DataError(
                f"{path}: expected ids.arrow, it is missing: another version of handsell wrote this catalog, or it is "
                "incomplete; run `handsell data CONFIG` and the steps after it again"
            )
        try:
            texts = pa.ipc.open_file(pa.memory_map(str(path / "ids.arrow"))).get_batch(0).column(0)
            hashes, order = (np.asarray(np.load(path / f"{name}.npy", mmap_mode="r")) for name in ("hashes", "order"))
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path} is damaged ({error}): run `handsell up CONFIG`, or `handsell data CONFIG` and the steps after "
                "it, again"
            ) from None
        return cls(texts, hashes, order)


def _to_array(ids: list[str]) -> pa.Array:
    return pa.array(ids, pa.large_string())


def _hash(ids: Sequence[str]) -> np.ndarray:
    try:
        return np.fromiter(map(crc32, map(str.encode, ids)), np.uint32, len(ids))
    except UnicodeEncodeError:
        return np.fromiter((crc32(i.encode("utf-8", "surrogatepass")) for i in ids), np.uint32, len(ids))
