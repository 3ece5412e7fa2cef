"""Progress of a run on stderr: model, trial, validation metric and time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from benchmarks.protocols.coordinate_search import Search
from benchmarks.protocols.protocol import OBJECTIVE


class Progress:
    """Lines for the log, and a transient bar on a terminal."""

    def __init__(self, k: int, console: Console | None = None) -> None:
        self._k = k
        self._console = console or Console(stderr=True, highlight=False)

    def log(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False)

    def log_trial(self, name: str, search: Search, left_s: float) -> None:
        """Log the last trial with the parameters that differ from the best one before it."""
        last, best = search.trials[-1], search.best
        before = Search(search.trials[:-1]).best.params if search.trials[1:] else {}
        moved = {key: value for key, value in last.params.items() if before.get(key) != value}
        tried = " ".join(f"{key}={value}" for key, value in moved.items()) or "defaults"
        self.log(
            f"{name}: trial {len(search.trials)}, {tried}: validation {OBJECTIVE}@{self._k} {last.value:.4f} "
            f"(best {best.value:.4f}), {last.seconds:.1f} s, {max(left_s, 0):.0f} s of the budget left"
        )

    def log_test(self, name: str, fit_s: float, users_per_s: float) -> None:
        self.log(f"{name}: fitted in {fit_s:.1f} s, {users_per_s:,.0f} test users/s")

    def log_failure(self, name: str, error: str) -> None:
        self.log(f"{name}: failed: {error}")

    @contextmanager
    def show_bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bars(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bars:
            task = bars.add_task(f"{name}: requests", total=total)
            yield lambda n: bars.advance(task, n)
