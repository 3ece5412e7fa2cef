"""Steps of torch's optimizers without its compiler, whose import takes two seconds and more of a short training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"


@contextmanager
def leave_out_compiler() -> Iterator[None]:
    """Within a `with` block, optimizers do not import torch's compiler, which they only tell to leave them alone.

    Where it is loaded already, nothing changes. Nothing may be compiled in the block.
    """
    if COMPILER in sys.modules:
        yield
        return
    absent = ModuleType(COMPILER)
    absent.disable = _leave_unchanged  # type: ignore[attr-defined]
    absent.graph_break = lambda *_, **__: None  # type: ignore[attr-defined]
    sys.modules[COMPILER] = absent
    torch._dynamo = absent  # type: ignore[assignment]
    try:
        yield
    finally:
        if sys.modules.get(COMPILER) is absent:
            del sys.modules[COMPILER]
        vars(torch).pop("_dynamo", None)


def _leave_unchanged(function: Callable, *_: Any, **__: Any) -> Callable:
    return function
