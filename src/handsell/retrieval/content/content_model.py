"""The fitted model of content vectors: saved in a bundle, so that items that come later get vectors, too."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.data.late_scipy import sparse
from handsell.retrieval.content.content_rows import ContentRows
from handsell.retrieval.sentences import SentenceModel

ROWS_AT_ONCE = 100_000
WEIGHTS = {
    "tags": 1.0,
    "words": 0.7,
    "numbers": 0.5,
}  # norm of each kind of attribute in an item's vector, before the reduction
CREATOR_WEIGHT = 0.7
SENTENCE_WEIGHT = 0.7
ARRAYS = ("scale", "tags", "words", "sentences", "used", "reduction")


@dataclass(frozen=True)
class ContentModel:
    """Turns the content of items into vectors of `size`, then `creators`, then sentence dimensions."""

    size: int  # dimensions of attributes
    creators: int  # dimensions of creators
    columns: tuple[str, ...]  # C numeric columns
    scale: np.ndarray  # (2, C) their mean and deviation
    tags: np.ndarray  # (T,) float32 weights of tags; later tags have none
    words: np.ndarray  # (BUCKETS,) float32 weights of hashed words; (0,) where sentences replace them
    text_model: str
    sentences: np.ndarray  # (S', S) float32 directions of sentence vectors
    used: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (U,) attributes that are reduced
    reduction: np.ndarray | None = None  # (R, U) float32 directions, R ≤ size; None: the attributes themselves

    def with_reduction(self, used: np.ndarray, directions: np.ndarray | None) -> ContentModel:
        return replace(self, used=used, reduction=directions)

    def encode(self, snapshot: Snapshot, items: np.ndarray) -> np.ndarray:
        """Return vectors (N, D) float32 of unit length for items (N,); zeros for an item without known content."""
        rows = ContentRows.of(snapshot, items)
        tags = rows.count_tags(len(self.tags))
        return self.encode_rows(rows, tags, rows.count_words() if len(self.words) else None)

    def encode_rows(self, rows: ContentRows, tags: sparse.csr_matrix, words: sparse.csr_matrix | None) -> np.ndarray:
        """Return vectors (N, D) of rows with these counts of tags and words."""
        parts = [self._reduce(self.weigh(rows, tags, words))]
        if self.creators:
            creators = rows.sum_creators(self.creators)
            parts.append(
                np.zeros((len(rows), self.creators), np.float32)
                if creators is None
                else CREATOR_WEIGHT * normalize(creators)
            )
        if self.text_model:
            parts.append(SENTENCE_WEIGHT * self._encode_sentences(rows.join_texts()))
        return normalize(np.hstack(parts))

    def weigh(self, rows: ContentRows, tags: sparse.csr_matrix, words: sparse.csr_matrix | None) -> sparse.csr_matrix:
        """Return the attributes (N, F) of all kinds, each kind as unit rows × its weight."""
        mean, deviation = self.scale
        values = (rows.read_numbers(self.columns) - mean) / np.where(deviation > 0, deviation, np.inf)
        numbers = sparse.csr_matrix(np.nan_to_num(np.clip(values, -3, 3)).astype(np.float32))
        kinds = {"tags": (tags @ sparse.diags(self.tags)).tocsr()}
        if words is not None:
            kinds["words"] = (words @ sparse.diags(self.words)).tocsr()
        kinds["numbers"] = numbers
        return sparse.hstack([WEIGHTS[kind] * _normalize_rows(part) for kind, part in kinds.items()], "csr")

    def _reduce(self, matrix: sparse.csr_matrix) -> np.ndarray:
        out = np.zeros((matrix.shape[0], self.size), np.float32)
        for start in range(0, matrix.shape[0], ROWS_AT_ONCE):
            some = matrix[start : start + ROWS_AT_ONCE][:, self.used]
            short = some.toarray() if self.reduction is None else some @ self.reduction.T
            out[start : start + ROWS_AT_ONCE, : short.shape[1]] = short
        return out

    def _encode_sentences(self, texts: list[str]) -> np.ndarray:
        encode, out = load_sentence_model(self.text_model), np.zeros((len(texts), len(self.sentences)), np.float32)
        for start in range(0, len(texts), ROWS_AT_ONCE):
            out[start : start + ROWS_AT_ONCE] = encode(texts[start : start + ROWS_AT_ONCE]) @ self.sentences.T
        return normalize(out)

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        for name in ARRAYS:
            array = getattr(self, name)
            if array is not None:
                np.save(path / f"{name}.npy", array)
        about = {name: getattr(self, name) for name in ("size", "creators", "columns", "text_model")}
        (path / "model.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, path: Path) -> ContentModel:
        about = json.loads((path / "model.json").read_text())
        files = {name: path / f"{name}.npy" for name in ARRAYS}
        arrays = {name: np.load(file, mmap_mode="r") for name, file in files.items() if file.is_file()}
        return cls(**{**about, "columns": tuple(about["columns"])}, **arrays)


@lru_cache(1)
def load_sentence_model(model: str) -> SentenceModel:
    """Load a sentence model once; raises ConfigError."""
    return SentenceModel(model)


def _normalize_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.diags((1 / np.where(norm > 0, norm, 1)).astype(np.float32)) @ matrix


def normalize(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to unit length; rows of zeros stay zeros."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norm > 0, norm, 1)).astype(np.float32)
