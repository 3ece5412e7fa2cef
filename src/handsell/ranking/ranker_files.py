"""Loading of a saved ranker, whatever its kind: the files say which."""

from __future__ import annotations

from pathlib import Path

from handsell.ranking.blended_ranker import BLEND, BlendedRanker
from handsell.ranking.transformer import WEIGHTS, TransformerRanker
from handsell.ranking.xgboost_ranker import XGBoostRanker

AnyRanker = XGBoostRanker | TransformerRanker | BlendedRanker


def load_ranker(path: Path) -> AnyRanker:
    """Load the ranker of a folder; raises BundleError where a file is missing or corrupt."""
    if (path / BLEND).exists():
        return BlendedRanker.load(path)
    return TransformerRanker.load(path) if (path / WEIGHTS).exists() else XGBoostRanker.load(path)
