"""Every retriever by name. To add one: a file with its class and fit function, its config section, one line here.

A fit function has the signature

    fit_x(interactions: Interactions, config: XConfig, content: Content | None = None) -> X

where `interactions` holds the events of the fit window only (weights from the config, negative ones included,
zero-weight ones ignored), sorted by user and time, and `content` (retrieval/content_vectors.py) the vectors of
every item of the catalog. A fit never fails for lack of data: what nothing is known of is just never found.
X has `name`, `retrieve`, `score`, `save(path)` and `load(path)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handsell.core.errors import BundleError
from handsell.core.protocols import Retriever
from handsell.data.interactions import Interactions
from handsell.retrieval.config import RetrievalConfig
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.embedding import EmbeddingRetriever
from handsell.retrieval.models.als import ALS, fit_als
from handsell.retrieval.models.blend import Blend, fit_blend
from handsell.retrieval.models.bought_together import BoughtTogether, fit_bought_together
from handsell.retrieval.models.content import ContentRetriever, fit_content
from handsell.retrieval.models.ease import EASE, fit_ease
from handsell.retrieval.models.history import HistoryRetriever, fit_history
from handsell.retrieval.models.item_knn import ItemKNN, fit_item_knn
from handsell.retrieval.models.popularity import Popularity, fit_popularity
from handsell.retrieval.models.sasrec import SASRec
from handsell.retrieval.models.session_knn import SessionKNN, fit_session_knn
from handsell.retrieval.models.spectral import Spectral, fit_spectral
from handsell.retrieval.models.svd import SVD, fit_svd
from handsell.retrieval.models.transitions import Transitions, fit_transitions
from handsell.retrieval.models.trending import Trending, fit_trending
from handsell.retrieval.models.two_tower import TwoTower
from handsell.retrieval.models.user_knn import UserKNN, fit_user_knn


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of retriever: how it is fitted, and the class that loads it."""

    kind: type[Any]
    fit: Callable[..., Any]
    whole: bool = False  # whether fit takes the whole RetrievalConfig rather than the section of its name

    def load(self, path: Path) -> Any:
        return self.kind.load(path)


def _fit_two_tower(interactions: Interactions, config: Any, content: Content | None = None) -> TwoTower:
    from handsell.retrieval.neural.two_tower_training import fit_two_tower  # torch: only where training happens

    return fit_two_tower(interactions, config, content)


def _fit_sasrec(interactions: Interactions, config: Any, content: Content | None = None) -> SASRec:
    from handsell.retrieval.neural.sasrec_training import fit_sasrec

    return fit_sasrec(interactions, config, content)


# in the order of RetrievalConfig, which is the order of `Candidates.sources`
RETRIEVERS: dict[str, Family] = {
    "popularity": Family(Popularity, fit_popularity),
    "history": Family(HistoryRetriever, fit_history),
    "item_knn": Family(ItemKNN, fit_item_knn),
    "als": Family(ALS, fit_als),
    "two_tower": Family(TwoTower, _fit_two_tower),
    "sasrec": Family(SASRec, _fit_sasrec),
    "content": Family(ContentRetriever, fit_content),
    "spectral": Family(Spectral, fit_spectral),
    "svd": Family(SVD, fit_svd),
    "ease": Family(EASE, fit_ease),
    "user_knn": Family(UserKNN, fit_user_knn),
    "trending": Family(Trending, fit_trending),
    "session_knn": Family(SessionKNN, fit_session_knn),
    "transitions": Family(Transitions, fit_transitions),
    "bought_together": Family(BoughtTogether, fit_bought_together),
    "blend": Family(Blend, fit_blend, whole=True),
}


def enabled(config: RetrievalConfig) -> tuple[str, ...]:
    """Names of the retrievers that a config switches on, in the order of its sections."""
    return tuple(name for name in RetrievalConfig.model_fields if name in RETRIEVERS and getattr(config, name).enabled)


def fit(name: str, interactions: Interactions, config: RetrievalConfig, content: Content | None = None) -> Retriever:
    """Fit one retriever, with an index fit for the size of the catalog."""
    family = RETRIEVERS[name]
    model = family.fit(interactions, config if family.whole else getattr(config, name), content)
    return model.indexed(config, interactions) if isinstance(model, EmbeddingRetriever) else model


def load(name: str, path: Path) -> Retriever:
    """Load a saved retriever; raises BundleError when its files are missing or broken."""
    if name not in RETRIEVERS:
        raise BundleError(f"retriever {name!r} is not one of {', '.join(RETRIEVERS)}: use the version that wrote it")
    try:
        return RETRIEVERS[name].load(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"retriever {name} in {path} cannot be loaded ({error}): train a new bundle") from error
