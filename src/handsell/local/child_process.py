"""Run a handsell command in a child process: show its progress, keep its output in a log file, return its result."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from handsell.core.errors import HandsellError
from handsell.jobs.progress import FORMAT, ProgressLine

LAST_LINES = 12  # of the output of a command that failed without saying why
UTF8 = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}  # in any locale
JSON_LINES = {FORMAT: "json"}  # environment of a job whose progress is read here


def run_child(
    command: Sequence[str], environment: Mapping[str, str], log: Path, show: Callable[[str], None] = print
) -> str:
    """Run the command with `environment` added to `os.environ`; return its result, or "done" if it reports none.

    `show` gets a line for each step and update. Raises HandsellError with the error that the command reported, or with
    the end of its output if it reported none (as when it crashed).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    result, error, output = "done", "", []
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        encoding="utf-8", errors="replace",
        env={**os.environ, **environment, **JSON_LINES, **UTF8, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    with child, log.open("w", encoding="utf-8") as out:
        assert child.stdout is not None
        for line, progress in _read_progress(child.stdout):
            out.write(f"{progress.to_text()}\n" if progress else line)
            out.flush()
            if progress is None:
                output.append(line.rstrip())
            elif progress.progress == "result":
                result = progress.text
            elif progress.progress == "error":
                error = progress.text
            else:
                show(f"    {progress.to_text()}")
    if child.wait() != 0:
        end = "\n".join([line for line in output if line.strip()][-LAST_LINES:])
        raise HandsellError(f"{error or end}\n(full output: {log})")
    return result


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
