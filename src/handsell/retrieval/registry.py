"""Fit and load retrievers by name.

To add one: a file in retrieval/models, or in a package of your own, with its config class, its class, its fit function
and one `RetrieverPlugin`. A fit function has the signature

    fit_x(interactions: Interactions, config: XConfig, content: Content | None = None) -> X

where `interactions` holds the events of the fit window only (weights from the config, negative ones included,
zero-weight ones ignored), sorted by user and time, and `content` (retrieval/content_vectors.py) the vectors of
every item of the catalog. A fit never fails for lack of data: what nothing is known of is just never found.
X has `name`, `retrieve`, `score`, `save(path)` and `load(path)`.
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
    """Fit one retriever, with an index fit for the size of the catalog."""
    plugin = retrievers()[name]
    model = plugin.fit_function()(interactions, config if plugin.whole_config else config[name], content)
    return model.indexed(config, interactions) if isinstance(model, EmbeddingRetriever) else model


def load(name: str, path: Path) -> Retriever:
    """Load a saved retriever; raises BundleError when its files are missing or broken."""
    if name not in retrievers():
        raise BundleError(
            f"retriever {name!r} is not one of {', '.join(retrievers())}: install its package, or use the version of "
            "handsell that wrote it"
        )
    try:
        return retrievers()[name].model.load(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"retriever {name} in {path} cannot be loaded ({error}): train a new bundle") from error
