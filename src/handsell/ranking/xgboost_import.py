"""Import xgboost without its scikit-learn interface: 0.3 s of CPU instead of 0.9 s in every process that ranks.

xgboost imports scikit-learn where it is installed, which imports scipy.stats; handsell uses neither from here.
"""

from __future__ import annotations

import sys

_skipped = "sklearn" not in sys.modules
if _skipped:
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # an import of it fails
try:
    import xgboost
finally:
    if _skipped:
        del sys.modules["sklearn"]

__all__ = ["xgboost"]
