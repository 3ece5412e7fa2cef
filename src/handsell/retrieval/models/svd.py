"""PureSVD [cremonesi2010]: the history projected on the leading singular vectors of the user–item matrix.

It is the spectral filter without degree scaling (all exponents 0) and without ridge.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from handsell.data.interactions import Interactions
from handsell.retrieval.config import OptionalFoldIn, RetrieverPlugin
from handsell.retrieval.models.spectral import Spectral, SpectralConfig, fit_spectral

SEARCH: dict[str, tuple] = {"half_life_days": (1e6, 0.5, 2.0, 14.0), "embedding_size": (64, 32, 128, 256)}


class SVDConfig(OptionalFoldIn):
    embedding_size: int = Field(64, ge=2, description="D, number of leading singular vectors")
    half_life_days: float = Field(28.0, gt=0, description="half-life of history events by age")
    seed: int = Field(0, description="random seed of the decomposition")


class SVD(Spectral):
    name: ClassVar[str] = "svd"


def fit_svd(interactions: Interactions, config: SVDConfig, content: object = None) -> SVD:
    """Compute the right singular vectors as item vectors."""
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
    purpose="a simple baseline by vectors is needed",
    needs="interactions",
    order=8,
    search=SEARCH,
)
