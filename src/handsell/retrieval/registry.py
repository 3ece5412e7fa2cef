"""Fit and load retrievers by name.

A retriever is a module in retrieval/models, or of a package with an entry point, with a config class, a model class, a
fit function and one `RetrieverPlugin`. The fit function has the signature

    fit_x(interactions: Interactions, config: XConfig, content: Content | None = None) -> X

`interactions` are the events of the fit window, sorted by user and time, weighted by the config; negative weights are
dislikes, events of weight 0 must be ignored. `content` (content_vectors.py) has a vector per item of the catalog.
Fitting must not fail for lack of data: items and users without data are just not found.
X has `name`, `retrieve`, `score`, `save(path)` and `load(path)`; handsell.testing.retriever_contract tests them.
"""

from __future__ import annotations

from pathlib import Path

from handsell.core.errors import BundleError
from handsell.core.protocols import Retriever
from handsell.data.interactions import Interactions
from handsell.retrieval.config import RetrievalConfig, retrievers
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.embedding import EmbeddingRetriever


def fit(name: str, interactions: Interactions, config: RetrievalConfig, content: Content | None = None) -> Retriever:
    """Fit a retriever; a model of vectors also gets the index that suits the size of the catalog."""
    plugin = retrievers()[name]
    model = plugin.resolve_fit()(interactions, config if plugin.whole_config else config[name], content)
    return model.with_index(config, interactions) if isinstance(model, EmbeddingRetriever) else model


def load(name: str, path: Path) -> Retriever:
    """Load a saved retriever; raises BundleError where it is not registered, or its files are missing or corrupt."""
    if name not in retrievers():
        raise BundleError(
            f"expected a registered retriever ({', '.join(retrievers())}), got {name!r}: install its package, or use "
            "the version of handsell that wrote the bundle"
        )
    try:
        return retrievers()[name].model.load(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"retriever {name} in {path} cannot be loaded ({error}): train a new bundle") from error
