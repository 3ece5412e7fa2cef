"""Content vectors of items: creators, tags, words and numeric columns; no interactions.

Tags, words and numeric columns are weighted by inverse document frequency and reduced by a truncated SVD
[deerwester1990]. It drops what few items have, such as a small town: a quarter of the dimensions is therefore a random
projection of what it leaves (docs/decisions/064). Creators, which a few singular directions do not represent well,
either, get random unit vectors [johnson1984]. Dictionaries, frequencies and scales are learned from items published
before the cut-off; every item of the catalog gets a vector, and items that come later get one of the same model. A
sentence model, if configured, replaces the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from handsell.catalog.snapshot import Snapshot
from handsell.data.late_scipy import sparse
from handsell.retrieval.content.content_model import ContentModel, load_sentence_model, normalize
from handsell.retrieval.content.content_rows import ContentRows

SVD_ROWS = 50_000  # items on which the reduction is fitted
REST_SHARE = 0.25  # share of the reduced dimensions for what the singular directions leave
SENTENCES = 10_000  # items on which the reduction of sentence vectors is fitted
SENTENCE_SHARE = 0.25  # share of the dimensions for sentence vectors


@dataclass(frozen=True)
class Content:
    """Content vectors of I items, and the model that computes those of later ones."""

    vectors: np.ndarray  # (I, D) float32, unit length; zeros for an item without content
    model: ContentModel | None = None

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "content.npy", self.vectors)
        if self.model is not None:
            self.model.save(path / "model")

    @classmethod
    def load(cls, path: Path) -> Content:
        model = ContentModel.load(path / "model") if (path / "model").is_dir() else None
        return cls(np.load(path / "content.npy", mmap_mode="r"), model)


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
    rng, rows = np.random.default_rng(seed), ContentRows.of(snapshot)
    creators = rows.sum_creators(size // 2)
    parts = [] if creators is None else [normalize(creators)]
    sentences = _fit_sentences(rows, text_model, int(SENTENCE_SHARE * size), learn, rng) if text_model else None
    rest = size - sum(part.shape[1] for part in parts) - (0 if sentences is None else len(sentences))
    tags, words = rows.count_tags(len(snapshot.tags)), None if text_model else rows.count_words()
    model = ContentModel(
        size=rest,
        creators=size // 2 if creators is not None else 0,
        columns=tuple(columns),
        scale=_measure(rows.read_numbers(columns)[learn]),
        tags=_compute_idf(tags, learn),
        words=np.zeros(0, np.float32) if words is None else _compute_idf(words, learn),
        text_model=text_model,
        sentences=sentences if sentences is not None else np.zeros((0, 0), np.float32),
    )
    model = _fit_reduction(model, model.weigh(rows, tags, words), learn, rng)
    return Content(model.encode_rows(rows, tags, words), model)


def _fit_sentences(rows: ContentRows, model: str, size: int, learn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (size, S) the leading directions of the sentence vectors of a sample of the items in `learn`."""
    from sklearn.decomposition import TruncatedSVD  # slow to import; only fitting needs it

    encode, texts = load_sentence_model(model), rows.join_texts()
    sample = encode([texts[i] for i in np.sort(rng.choice(learn, min(len(learn), SENTENCES), replace=False))])
    out = np.zeros((size, sample.shape[1]), np.float32)
    rank = min(size, *(n - 1 for n in sample.shape))
    if rank >= 1:
        out[:rank] = TruncatedSVD(rank, random_state=int(rng.integers(2**31))).fit(sample).components_
    return out


def _measure(values: np.ndarray) -> np.ndarray:
    """Return (2, C) mean and deviation of the finite values of each column; deviation 0 where there are none."""
    out = np.zeros((2, values.shape[1]))
    for c, column in enumerate(values.T):
        known = column[np.isfinite(column)]
        if len(known):
            out[:, c] = known.mean(), known.std()
    return out


def _compute_idf(counts: sparse.csr_matrix, learn: np.ndarray) -> np.ndarray:
    """Return (F,) float32 log((n + 1) / (df + 1)); 0 for columns with fewer than two items of `learn`."""
    frequency = np.bincount(counts[learn].indices, minlength=counts.shape[1])
    return np.where(frequency >= 2, np.log((len(learn) + 1) / (frequency + 1)) + 1e-3, 0).astype(np.float32)


def _fit_reduction(
    model: ContentModel, matrix: sparse.csr_matrix, learn: np.ndarray, rng: np.random.Generator
) -> ContentModel:
    """Return the model with the leading singular directions of a sample of the rows in `learn`, and random others."""
    from sklearn.decomposition import TruncatedSVD  # slow to import; only fitting needs it

    sample = learn if len(learn) <= SVD_ROWS else np.sort(rng.choice(learn, SVD_ROWS, replace=False))
    rows = matrix[sample]
    used = np.flatnonzero(np.bincount(rows.indices[rows.data != 0], minlength=matrix.shape[1]))
    if len(used) <= model.size:  # nothing to reduce
        return model.with_reduction(used, None)
    rows = rows[:, used]
    others = int(REST_SHARE * model.size)
    rank = min(model.size - others, *(n - 1 for n in rows.shape))
    if rank < 1:
        return model.with_reduction(used, np.zeros((0, len(used)), np.float32))
    with threadpool_limits(1):
        svd = TruncatedSVD(rank, random_state=int(rng.integers(2**31)), n_iter=3).fit(rows)
    leading = svd.components_.astype(np.float32)
    return model.with_reduction(used, np.vstack([leading, _draw_others(leading, others, rng)]))


def _draw_others(leading: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return directions (size, U) that are orthogonal to the leading ones (R, U), random otherwise [johnson1984].

    An attribute that the leading directions do not represent has about the length 1 in them; two such attributes have
    a cosine of about 0 ± size ** -0.5.
    """
    drawn = rng.choice(np.array([-1, 1], np.float32), (size, leading.shape[1])) / np.float32(np.sqrt(max(size, 1)))
    return drawn - (drawn @ leading.T) @ leading
