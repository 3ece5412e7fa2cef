"""Content vectors of items: creators, tags, words and numeric columns; no interactions.

Tags, words and numeric columns are weighted by inverse document frequency and reduced by a truncated SVD
[deerwester1990]. Creators, which a few singular directions do not represent well, get random unit vectors
[johnson1984]. Dictionaries, frequencies and scales are learned from items published before the cut-off; every item of
the catalog gets a vector. A sentence model, if configured, replaces the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import sparse
from threadpoolctl import threadpool_limits

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import Ragged
from handsell.retrieval.sentences import SentenceModel

SVD_ROWS = 50_000  # items on which the reduction is fitted
SENTENCES = 10_000  # items on which the reduction of sentence vectors is fitted
ROWS_AT_ONCE = 100_000
BUCKETS = 2**16  # hash buckets of words
WEIGHTS = {
    "tags": 1.0,
    "words": 0.7,
    "numbers": 0.5,
}  # norm of each kind of attribute in an item's vector, before the reduction
CREATOR_WEIGHT = 0.7
SENTENCE_WEIGHT = 0.7
SENTENCE_SHARE = 0.25  # share of the dimensions for sentence vectors


@dataclass(frozen=True)
class Content:
    """Content vectors of I items."""

    vectors: np.ndarray  # (I, D) float32, unit length; zeros for an item without content

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "content.npy", self.vectors)

    @classmethod
    def load(cls, path: Path) -> Content:
        return cls(np.load(path / "content.npy", mmap_mode="r"))


def fit_content_vectors(
    snapshot: Snapshot, size: int, *, before: int, columns: Sequence[str] = (), text_model: str = "", seed: int = 0
) -> Content:
    """Compute vectors of `size` dimensions for every item, learned from items published before `before` (µs).

    `columns` are numeric columns of the snapshot's metadata (`FeaturesConfig.item_columns`); `text_model` is a
    sentence-transformers model (retrieval/sentences.py).
    """
    learn = np.flatnonzero(snapshot.published < before)
    if not len(learn):
        learn = np.arange(len(snapshot))
    rng = np.random.default_rng(seed)
    creators = _build_creator_vectors(snapshot, size // 2, rng)
    parts = [] if creators is None else [CREATOR_WEIGHT * creators]
    if text_model:
        parts.append(
            SENTENCE_WEIGHT * _build_sentence_vectors(snapshot, text_model, int(SENTENCE_SHARE * size), learn, rng)
        )
    rest = size - sum(part.shape[1] for part in parts)
    return Content(
        _normalize(
            np.hstack([_reduce(_build_attributes(snapshot, columns, learn, text_model), learn, rest, rng), *parts])
        )
    )


def _build_sentence_vectors(
    snapshot: Snapshot, model: str, size: int, learn: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return sentence vectors (I, size), reduced to the leading directions of a sample of the items in `learn`."""
    from sklearn.decomposition import TruncatedSVD  # slow to import; only fitting needs it

    encode, texts = SentenceModel(model), _join_texts(snapshot)
    sample = encode([texts[i] for i in np.sort(rng.choice(learn, min(len(learn), SENTENCES), replace=False))])
    out = np.zeros((len(texts), size), np.float32)
    rank = min(size, *(n - 1 for n in sample.shape))
    if rank < 1:
        return out
    svd = TruncatedSVD(rank, random_state=int(rng.integers(2**31))).fit(sample)
    for start in range(0, len(texts), ROWS_AT_ONCE):
        out[start : start + ROWS_AT_ONCE, :rank] = svd.transform(encode(texts[start : start + ROWS_AT_ONCE]))
    return _normalize(out)


def _build_creator_vectors(snapshot: Snapshot, size: int, rng: np.random.Generator) -> np.ndarray | None:
    """Return (I, size) the mean of the creators' random directions, unit length; None where items have no creators."""
    names = _read_lists(snapshot.metadata, "creators", len(snapshot))
    number = snapshot.creators.number(names.values.tolist())
    if not (number >= 0).any() or size == 0:
        return None
    directions = rng.standard_normal(
        (len(snapshot.creators), size), np.float32
    )  # in the order of creator numbers, so that new creators do not change those of others
    known = number >= 0
    shape = (len(snapshot), len(snapshot.creators))
    who = sparse.csr_matrix((np.ones(known.sum(), np.float32), (names.row_of_value[known], number[known])), shape=shape)
    return _normalize(np.asarray(who @ _normalize(directions)))


def _build_attributes(
    snapshot: Snapshot, columns: Sequence[str], learn: np.ndarray, text_model: str = ""
) -> sparse.csr_matrix:
    """Return the attributes (I, F) of all kinds, each kind as unit rows × its weight."""
    kinds = {"tags": _count_tags(snapshot)}
    if not text_model:
        kinds["words"] = _count_words(snapshot)
    blocks = [WEIGHTS[kind] * _normalize_rows(_weight_by_idf(counts, learn)) for kind, counts in kinds.items()]
    numbers = _scale_columns(snapshot.metadata, columns, learn)
    blocks.append(WEIGHTS["numbers"] * _normalize_rows(sparse.csr_matrix(numbers)))
    return sparse.hstack(blocks, "csr")


def _count_tags(snapshot: Snapshot) -> sparse.csr_matrix:
    tags = snapshot.item_tags
    shape = (len(snapshot), max(len(snapshot.tags), 1))
    return sparse.csr_matrix((np.ones(len(tags.values), np.float32), tags.values, tags.offsets), shape=shape)


def _count_words(snapshot: Snapshot) -> sparse.csr_matrix:
    """Count the hashed words (I, BUCKETS) of titles and texts."""
    from sklearn.feature_extraction.text import HashingVectorizer  # slow to import; only fitting needs it

    hashing = HashingVectorizer(n_features=BUCKETS, norm=None, alternate_sign=False, stop_words="english", dtype="f4")
    return hashing.transform(_join_texts(snapshot)).tocsr()


def _join_texts(snapshot: Snapshot) -> list[str]:
    columns = [snapshot.metadata[c].to_pylist() for c in ("title", "text") if c in snapshot.metadata.column_names]
    return [" ".join(filter(None, row)) for row in zip(*columns, strict=True)] if columns else [""] * len(snapshot)


def _scale_columns(metadata: pa.Table, columns: Sequence[str], learn: np.ndarray) -> np.ndarray:
    """(I, C) numeric columns, standardized over `learn`; an unknown value counts as average."""
    out = np.zeros((metadata.num_rows, len(columns)), np.float32)
    for c, name in enumerate(columns):
        if name not in metadata.column_names:
            continue
        values = metadata[name].cast(pa.float64()).to_numpy()
        known = values[learn][np.isfinite(values[learn])]
        if len(known) and known.std() > 0:
            out[:, c] = np.nan_to_num(np.clip((values - known.mean()) / known.std(), -3, 3))
    return out


def _weight_by_idf(counts: sparse.csr_matrix, learn: np.ndarray) -> sparse.csr_matrix:
    """Multiply counts by log((n + 1) / (df + 1)); columns with fewer than two items of `learn` become 0."""
    frequency = np.bincount(counts[learn].indices, minlength=counts.shape[1])
    weight = np.where(frequency >= 2, np.log((len(learn) + 1) / (frequency + 1)) + 1e-3, 0)
    return (counts @ sparse.diags(weight.astype(np.float32))).tocsr()


def _reduce(matrix: sparse.csr_matrix, learn: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Project rows on the leading singular directions (I, size) of a sample of the rows in `learn`."""
    from sklearn.decomposition import TruncatedSVD  # slow to import; only fitting needs it

    out = np.zeros((matrix.shape[0], size), np.float32)
    sample = learn if len(learn) <= SVD_ROWS else np.sort(rng.choice(learn, SVD_ROWS, replace=False))
    rows = matrix[sample]
    used = np.flatnonzero(np.bincount(rows.indices[rows.data != 0], minlength=matrix.shape[1]))
    if not len(used):
        return out
    matrix, rows = matrix[:, used], rows[:, used]
    if len(used) <= size:  # nothing to reduce
        out[:, : len(used)] = matrix.toarray()
        return out
    rank = min(size, *(n - 1 for n in rows.shape))
    if rank < 1:
        return out
    with threadpool_limits(1):
        svd = TruncatedSVD(rank, random_state=int(rng.integers(2**31)), n_iter=3).fit(rows)
    for start in range(0, matrix.shape[0], ROWS_AT_ONCE):
        out[start : start + ROWS_AT_ONCE, :rank] = svd.transform(matrix[start : start + ROWS_AT_ONCE])
    return out


def _read_lists(table: pa.Table, name: str, rows: int) -> Ragged:
    """Read a list<string> column; rows are empty where the column is missing or null."""
    if name not in table.column_names:
        return Ragged(np.zeros(0, object), np.zeros(rows + 1, np.int64))
    lists = table[name].to_pylist()
    return Ragged.from_rows([row or [] for row in lists], object)


def _normalize_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.diags((1 / np.where(norm > 0, norm, 1)).astype(np.float32)) @ matrix


def _normalize(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to unit length; rows of zeros stay zeros."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norm > 0, norm, 1)).astype(np.float32)
