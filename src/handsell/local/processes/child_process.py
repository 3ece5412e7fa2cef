"""Run handsell commands in a child process: show their progress, keep their output in log files, return the results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from handsell.core.errors import HandsellError
from handsell.jobs.progress import FORMAT, ProgressLine

LAST_LINES = 12  # of the output of a command that failed without saying why
UTF8 = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}  # in any locale
SERVER = "handsell.local.processes.command_process"
END = "handsell: the command has ended with status "
JSON_LINES = {FORMAT: "json"}  # environment of a job whose progress is read here


def run_child(
    command: Sequence[str], environment: Mapping[str, str], log: Path, show: Callable[[str], None] = print
) -> str:
    """Run the command with `environment` added to `os.environ`; return its result, or "done" if it reports none.

    `show` gets a line for each step and update. Raises HandsellError with the error that the command reported, or with
    the end of its output if it reported none (as when it crashed).
    """
    child = _start(command, environment, subprocess.DEVNULL)
    with child:
        assert child.stdout is not None
        output = _follow(child.stdout, log, show)
    return output.take_result(child.wait(), log)


class CommandProcess:
    """A child process that runs handsell commands one after the other, so that their imports take time once.

    It starts with the first command, and ends with the block. A command that fails does not end it; after a crash, the
    next command starts another one.
    """

    def __init__(self, environment: Mapping[str, str]):
        self._environment = environment
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> CommandProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, arguments: Sequence[str], log: Path, show: Callable[[str], None] = print) -> str:
        """Run one command, as `run_child` does; `arguments` are those of `handsell`."""
        if self._child is None:
            self._child = _start((sys.executable, "-m", SERVER), self._environment, subprocess.PIPE)
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(BrokenPipeError):  # it has ended: its output says why
            child.stdin.write(json.dumps(list(arguments)) + "\n")
            child.stdin.flush()
        output = _follow(child.stdout, log, show)
        status = output.status
        if status is None:
            self.close()
            status = child.returncode or 1
        return output.take_result(status, log)

    def close(self) -> None:
        """End the process when its command has ended."""
        child, self._child = self._child, None
        if child is not None:
            with child:  # closes its input, and waits
                pass


@dataclass
class _Output:
    """What a command has printed: its result and error, and the lines that are no progress."""

    result: str = "done"
    error: str = ""
    lines: list[str] = field(default_factory=list)
    status: int | None = None  # None: the output has ended without one

    def take_result(self, status: int, log: Path) -> str:
        """Return the result; raises HandsellError where the status is not 0."""
        if status == 0:
            return self.result
        end = "\n".join([line for line in self.lines if line.strip()][-LAST_LINES:])
        raise HandsellError(f"{self.error or end}\n(full output: {log})")


def _start(command: Sequence[str], environment: Mapping[str, str], stdin: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=stdin,
        encoding="utf-8", errors="replace",
        env={**os.environ, **environment, **JSON_LINES, **UTF8, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def _follow(lines: IO[str], log: Path, show: Callable[[str], None]) -> _Output:
    """Show and log what a command prints, until it or its process ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    output = _Output()
    with log.open("w", encoding="utf-8") as out:
        for line, progress in _read_progress(lines):
            if line.startswith(END):
                output.status = int(line.removeprefix(END))
                break
            out.write(f"{progress.to_text()}\n" if progress else line)
            out.flush()
            if progress is None:
                output.lines.append(line.rstrip())
            elif progress.progress == "result":
                output.result = progress.text
            elif progress.progress == "error":
                output.error = progress.text
            else:
                show(f"    {progress.to_text()}")
    return output


def format_end(status: int) -> str:
    """Return the line after the output of a command of CommandProcess."""
    return f"{END}{status}"


def _read_progress(output: IO[str]) -> Iterator[tuple[str, ProgressLine | None]]:
    """Yield each line, with its progress if it holds any; progress that Ray forwards again is left out."""
    seen: set[ProgressLine] = set()
    for line in output:
        progress = ProgressLine.from_json(line)
        if progress in seen:
            continue
        if progress is not None:
            if progress.progress == "started":  # the next step may report the same updates as this one
                seen = {one for one in seen if one.progress != "update"}
            seen.add(progress)
        yield line, progress
