"""Sentence vectors of titles and texts, by the optional package sentence-transformers.

pip install 'handsell[text]'
[retrieval.content]
text_model = "models/all-MiniLM-L6-v2"      # a folder, or a name that the package can download
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from handsell.core.errors import ConfigError

BATCH_SIZE = 256  # texts per pass of the model
_device: ContextVar[str] = ContextVar("device", default="cpu")  # of models that are loaded: serving has no GPU


@contextmanager
def use_device(name: str) -> Iterator[None]:
    """Load sentence models on a device within the block: "cpu" or "cuda"."""
    before = _device.set(name)
    try:
        yield
    finally:
        _device.reset(before)


class SentenceModel:
    """A loaded sentence-transformers model; raises ConfigError where the package or the model is missing."""

    def __init__(self, model: str):
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            from sentence_transformers import SentenceTransformer  # optional package
        except ImportError:
            raise ConfigError(
                f"retrieval.content.text_model = {model!r} needs the package sentence-transformers: "
                "pip install 'handsell[text]', or leave text_model empty for hashed words"
            ) from None
        try:
            self._model = SentenceTransformer(model, device=_device.get())
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else repr(error)
            raise ConfigError(
                f"retrieval.content.text_model: expected a sentence-transformers model, got {model!r} ({reason}): give "
                "its folder, or a name that can be downloaded"
            ) from None

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors (N, S) float32 of the texts; zeros for empty texts."""
        vectors = self._model.encode(
            list(texts),
            batch_size=BATCH_SIZE,
            convert_to_numpy=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        has_text = np.array([bool(text.strip()) for text in texts])
        return np.where(has_text[:, None], vectors, 0).astype(np.float32)
