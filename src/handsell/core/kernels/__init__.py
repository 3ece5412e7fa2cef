"""Compiled loops over items, candidates and trees.

`compiled` is the module of the C files beside this one. It is None where it was not built (no C compiler at
installation), and with HANDSELL_KERNELS=off. Each caller then uses its NumPy code, which is the reference: tests
require equal results.
"""

from __future__ import annotations

import os
from typing import Any

compiled: Any = None
if os.environ.get("HANDSELL_KERNELS") != "off":
    try:
        from handsell.core.kernels import _compiled as compiled  # type: ignore[attr-defined,no-redef]
    except ImportError:
        compiled = None

__all__ = ["compiled"]
