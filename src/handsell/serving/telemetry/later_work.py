"""Work that an answer does not need, done when it has been written: metrics of requests and slates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

WRITTEN = 1  # turns after that in which an answer is made: a server writes at the end of a turn what it was given in it
COMPUTED = 2  # turns after that in which a batch ends, whose callers make their answers in the next one


def work_later(work: Callable[[], object], turns: int = WRITTEN) -> None:
    """Call a function in a later turn of the event loop; what it raises is logged, and does not reach the answer."""
    loop = asyncio.get_running_loop()
    if turns > 1:
        loop.call_soon(work_later, work, turns - 1)
    else:
        loop.call_soon(work)
