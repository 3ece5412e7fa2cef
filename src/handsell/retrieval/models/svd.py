"""PureSVD [cremonesi2010]: the history projected on the leading singular vectors of the plain user–item matrix.

It is the spectral filter without degree scaling (all exponents 0) and with an ideal low-pass (no ridge): the same
code under its own name, since it is what others mean by "SVD" and where a comparison begins.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from handsell.data.interactions import Interactions
from handsell.retrieval.config import OptionalFoldIn, RetrieverPlugin
from handsell.retrieval.models.spectral import Spectral, SpectralConfig, fit_spectral

SEARCH: dict[str, tuple] = {"half_life_days": (1e6, 0.5, 2.0, 14.0), "embedding_size": (64, 32, 128, 256)}


class SVDConfig(OptionalFoldIn):
    embedding_size: int = Field(64, ge=2, description="D, leading singular vectors kept")
    half_life_days: float = Field(28.0, gt=0, description="decay of history events at fold-in")
    seed: int = Field(0, description="of the randomized decomposition")


class SVD(Spectral):
    name: ClassVar[str] = "svd"


def fit_svd(interactions: Interactions, config: SVDConfig, content: object = None) -> SVD:
    """Item vectors are the right singular vectors; a history's query is the sum of its items'."""
    plain = SpectralConfig(
        embedding_size=config.embedding_size,
        user_exponent=0, item_exponent=0, answer_exponent=0, ridge=0,
        seed=config.seed, **{name: getattr(config, name) for name in config.HISTORY_KEYS},
    )  # fmt: skip
    fitted = fit_spectral(interactions, plain)
    return SVD(fitted.encoder, fitted.index)


RETRIEVER = RetrieverPlugin(
    "svd",
    SVDConfig,
    SVD,
    fit_svd,
    purpose="the plainest vectors, to compare with",
    needs="interactions",
    order=8,
    search=SEARCH,
)
