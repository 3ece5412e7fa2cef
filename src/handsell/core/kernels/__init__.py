"""Compiled loops over items, candidates and trees.

`compiled` is the module of the C files beside this one. It is None where it was not built (no C compiler at
installation) or was built from other C files, and with HANDSELL_KERNELS=off. Each caller then uses its NumPy code,
which is the reference: tests require equal results.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any
from zlib import crc32


def hash_sources(folder: Path) -> int:
    """Return the checksum of the C files in a folder; setup.py builds the same one into the module."""
    return crc32(b"".join(path.read_bytes() for path in sorted(folder.glob("*.[ch]")))) >> 1  # fits into a C long


def check_current(module: Any) -> Any:
    """Return the module, or None with a RuntimeWarning where it was built from other C files than those here."""
    if getattr(module, "checksum", None) == hash_sources(Path(__file__).parent):
        return module
    warnings.warn(
        f"{module.__file__} was built from other C files than those beside it, so that handsell computes with NumPy, "
        "more slowly: build it again with `pip install --editable .` or `python setup.py build_ext --inplace`",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


compiled: Any = None
if os.environ.get("HANDSELL_KERNELS") != "off":
    try:
        from handsell.core.kernels import _compiled  # type: ignore[attr-defined]
    except ImportError:
        pass
    else:
        compiled = check_current(_compiled)

__all__ = ["check_current", "compiled"]
