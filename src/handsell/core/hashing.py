"""Reproducible hashes and pseudorandom numbers: the same keys give the same numbers in every run and version."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's increment
GOLDEN_INVERSE = np.uint64(pow(int(GOLDEN), -1, 2**64))
ROWS_AT_ONCE = 65_536  # hashed at once, which bounds the memory


def mix(x: np.ndarray) -> np.ndarray:
    """Return the next output of SplitMix64 for state x (uint64, any shape)."""
    return finalize(x + GOLDEN)


def finalize(x: np.ndarray) -> np.ndarray:
    """Apply SplitMix64's finalizer (@steele2014splittable) to uint64: one input bit flips half of the output bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def invert_finalize(x: np.ndarray) -> np.ndarray:
    """Return the uint64 of which `finalize` makes x."""
    x = x ^ (x >> np.uint64(31)) ^ (x >> np.uint64(62))
    x = x * np.uint64(pow(0x94D049BB133111EB, -1, 2**64))
    x = x ^ (x >> np.uint64(27)) ^ (x >> np.uint64(54))
    x = x * np.uint64(pow(0xBF58476D1CE4E5B9, -1, 2**64))
    return x ^ (x >> np.uint64(30)) ^ (x >> np.uint64(60))


def uniform(seed: int, *keys: np.ndarray) -> np.ndarray:
    """Hash parallel integer keys (N,) to (N,) float64 in [0, 1); different seeds give independent numbers."""
    mixed = np.full(len(keys[0]), seed, np.uint64)
    for key in keys:
        mixed = mix(mixed ^ mix(key.astype(np.int64).view(np.uint64)))
    return (mixed >> np.uint64(11)) * 2.0**-53


def hash_text(text: str) -> int:
    """Hash one text to 64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def derive_seed(recommendation_id: str) -> int:
    """Return a 64-bit seed from a recommendation id, so that its random draws can be repeated."""
    return int.from_bytes(hashlib.blake2b(recommendation_id.encode(), digest_size=8).digest(), "big")


def hash_unit(unit_id: str | None) -> int:
    """Hash the id of a user, visitor or session, by which arms are assigned; 0 without an id, which is in no arm."""
    return 0 if unit_id is None else hash_text(unit_id) or 1


def find_last_column(hashes: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return `hash_column` of the last column of rows (N,), whose other columns have the hashes `before`."""
    return invert_finalize(hashes) - before * GOLDEN


def replace_rows(hashes: np.ndarray, before: np.ndarray, after: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the hashes (N,) of rows whose first columns are replaced, without knowing the last column but one.

    `before`, `after`: hashes of the columns before it; `last`: `hash_column` of the last one.
    """
    unknown = find_last_column((invert_finalize(hashes) - last) * GOLDEN_INVERSE, before)
    return finalize(finalize(after * GOLDEN + unknown) * GOLDEN + last)


FACTORS = mix(np.arange(4096, dtype=np.uint64)) | np.uint64(1)  # of the bytes of a text


def hash_rows(*columns: pa.Array) -> np.ndarray:
    """Hash rows of text, number or time columns to (N,) uint64; nulls hash like empty text or 0."""
    total = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        total = finalize(total * GOLDEN + hash_column(column))
    return total


def hash_column(column: pa.Array) -> np.ndarray:
    """Return the values of a text, number or time column as (N,) uint64; nulls are like empty text or 0."""
    if pa.types.is_string(column.type):
        return hash_texts(*read_utf8(column))
    return np.asarray(pc.fill_null(column.cast(pa.int64()), 0)).astype(np.uint64)


def hash_texts(utf8: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Hash N texts, the bytes utf8[offsets[i]:offsets[i + 1]], to (N,) uint64: a weighted sum of bytes, and the length.

    The sums are differences of one running sum.
    """
    out = np.empty(len(offsets) - 1, np.uint64)
    for start in range(0, len(out), ROWS_AT_ONCE):
        at = offsets[start : start + ROWS_AT_ONCE + 1].astype(np.int64)
        raw, lengths, at = utf8[at[0] : at[-1]], np.diff(at), at - at[0]
        place = np.arange(len(raw)) - np.repeat(at[:-1], lengths)
        terms = (raw.astype(np.uint64) + np.uint64(1)) * FACTORS[place % len(FACTORS)]
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
        out[start : start + ROWS_AT_ONCE] = sums[at[1:]] - sums[at[:-1]] + lengths.astype(np.uint64)
    return out


def read_utf8(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of string or large_string values, and offsets (N + 1,) into them; nulls are empty."""
    texts = pc.fill_null(texts, "") if texts.null_count else texts
    _, offsets, utf8 = texts.buffers()
    if offsets is None or not len(texts):
        return np.zeros(0, np.uint8), np.zeros(len(texts) + 1, np.int64)
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    at = np.frombuffer(offsets, kind)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(utf8, np.uint8) if utf8 is not None else np.zeros(0, np.uint8), at
