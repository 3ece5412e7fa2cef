"""A copy of this process that calls a function: without the seconds of imports that a new process would take."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True, slots=True)
class FinishedProcess:
    """Exit status and output of a process."""

    returncode: int
    stdout: str
    stderr: str


def can_copy() -> bool:
    """Return whether this process may be copied: of its threads, a copy has only the one that made it.

    So no other thread of Python may run, as with a connected Ray, and OpenMP must have been limited to one: in the copy
    it would wait for its other threads for ever.
    """
    one_thread = threading.active_count() == 1 and os.environ.get("OMP_NUM_THREADS") == "1"
    return sys.platform == "linux" and one_thread


class ProcessCopy:
    """Calls a function in a copy of this process; what it changes is seen in files alone.

    The exit status is 0, that of SystemExit, or 1 after another error, whose traceback is in stderr.
    """

    def __init__(self, call: Callable[[], object]):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # the copy would write what is left in their buffers again
        self._output = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by wait
        self._pid = os.fork()
        if self._pid == 0:
            os._exit(_call(call, *self._output))

    def wait(self) -> FinishedProcess:
        """Wait until it has ended."""
        _, status = os.waitpid(self._pid, 0)
        texts = []
        for file in self._output:
            with file:
                file.seek(0)
                texts.append(file.read())
        return FinishedProcess(os.waitstatus_to_exitcode(status), *texts)

    def stop(self) -> None:
        """End it at once, whatever it does."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self.wait()


def _call(call: Callable[[], object], out: IO[str], err: IO[str]) -> int:
    """Call the function in the copy; return the exit status."""
    status = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, source in enumerate((nothing, out.fileno(), err.fileno())):
            os.dup2(source, number)
        sys.stdout, sys.stderr = out, err
        call()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=err)
    except BaseException:
        traceback.print_exc(file=err)
    finally:
        out.flush()
        err.flush()
    return status
