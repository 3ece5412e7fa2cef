"""The refit of the retrievers on all data: beside the rest of the training where this process can be copied."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from handsell.core.processes.process_copy import ProcessCopy, can_copy
from handsell.jobs.cluster import is_in_process
from handsell.jobs.train.retrievers import fit_retrievers, list_distributed
from handsell.jobs.train.training_run import TrainingRun

log = logging.getLogger(__name__)
FOLDER = "refit"  # of the run


class Refit:
    """Retrievers with the settings of a run, fitted on all data: by `copy`, another process, or here."""

    def __init__(self, run: TrainingRun, copy: ProcessCopy | None):
        self._run, self._copy = run, copy

    def finish(self, out: Path) -> None:
        """Move the retrievers to out/retrievers; fit them here where no copy of this process has."""
        folder, copy = self._run.folder / FOLDER, self._copy
        self._copy = None
        if copy is None:
            fit_again(self._run)
        elif (done := copy.wait()).returncode:
            log.warning("the refit in a process of its own failed, and runs again: %s", done.stderr.strip()[-500:])
            fit_again(self._run)
        shutil.move(folder / "retrievers", out / "retrievers")
        shutil.rmtree(folder)

    def stop(self) -> None:
        if self._copy is not None:
            self._copy.stop()


@contextmanager
def start_refit(run: TrainingRun) -> Iterator[Refit]:
    """Begin to fit the retrievers of a run, whose sources have been chosen, on all data; stop when the block fails.

    On small data and two processors or more, a copy of this process does it, beside the rest of the training.
    """
    processors = min(run.config.jobs.num_cpus, len(os.sched_getaffinity(0)) if can_copy() else 1)
    beside = processors > 1 and is_in_process() and not list_distributed(run.config)
    refit = Refit(run, ProcessCopy(lambda: fit_again(run)) if beside else None)
    try:
        yield refit
    finally:
        refit.stop()


def fit_again(run: TrainingRun) -> None:
    """Fit the retrievers on all data, in the folder of the run."""
    folder = run.folder / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    fit_retrievers(run.config, run.folder / "all", folder)
