"""Failure policy: a part that fails is logged, named in the answer and left out."""

from __future__ import annotations

import logging
from types import TracebackType

log = logging.getLogger(__name__)


class Failures:
    """Names of what failed while one batch was answered, each once, in the order of failure.

    `with failures.tolerate("ranking"):` suppresses an exception of its body and records the name. With `strict`, as
    in jobs, the exception is raised.
    """

    def __init__(self, strict: bool = False):
        self.strict = strict
        self._names: dict[str, None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def add(self, *names: str) -> None:
        self._names.update(dict.fromkeys(names))

    def tolerate(self, name: str) -> _Tolerated:
        return _Tolerated(self, name)


class _Tolerated:
    def __init__(self, failures: Failures, name: str):
        self._failures, self._name = failures, name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if not isinstance(error, Exception) or self._failures.strict:
            return False
        log.error("%s failed; answering without it", self._name, exc_info=error)
        self._failures.add(self._name)
        return True
