"""The progress of a job: its numbered steps, updates within a step, and its result or error, one line each.

People get text. A program that sets `HANDSELL_PROGRESS=json` in the job's environment gets the same lines as JSON
objects and reads them with `ProgressLine.from_json`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Literal

from handsell.core.logs.passwords import hide_passwords

FORMAT = "HANDSELL_PROGRESS"  # environment variable: "json" for JSON lines, else text
START = '{"progress": '  # every JSON line begins with this


@dataclass(frozen=True, slots=True)
class ProgressLine:
    """One line of progress. As JSON, one object on one line; fields without a value are left out."""

    progress: Literal["started", "finished", "update", "result", "error"]
    text: str = ""  # what the step is about to do or has found; the update; the job's result; the error's message
    step: int | None = None  # number of the step, from 1 (of "started" and "finished", as the next three)
    steps: int | None = None  # how many steps the job has
    name: str | None = None  # of the step
    seconds: float | None = None  # that the step took ("finished" only)

    def to_json(self) -> str:
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None})

    @classmethod
    def from_json(cls, line: str) -> ProgressLine | None:
        """Return the progress that a line of output holds, or None for any other line.

        Ray writes the worker's name before a forwarded line, and sometimes a note after it: both are ignored.
        """
        start = line.find(START)
        if start < 0:
            return None
        try:
            values, _ = json.JSONDecoder().raw_decode(line[start:])
        except json.JSONDecodeError:
            return None
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_text(self) -> str:
        match self.progress:
            case "started":
                return f"[{self.step}/{self.steps}] {self.name}{': ' + self.text if self.text else ''} …"
            case "finished":
                return f"[{self.step}/{self.steps}] {self.name}: {self.text or 'done'} ({self.seconds:.1f} s)"
            case "update":
                return f"  · {self.text}"
            case _:
                return f"{self.progress}: {self.text}"


def report_update(text: str) -> None:
    """Report progress within the current step."""
    _write(ProgressLine("update", text))


def report_result(text: str) -> None:
    """Report the result of the job in one sentence."""
    _write(ProgressLine("result", text))


def report_error(message: str) -> None:
    """Report why the job failed; text goes to stderr."""
    _write(ProgressLine("error", message))


def _write(line: ProgressLine) -> None:
    line = replace(line, text=hide_passwords(line.text))
    as_json = os.environ.get(FORMAT) == "json"
    out = sys.stderr if line.progress == "error" and not as_json else sys.stdout
    out.write((line.to_json() if as_json else line.to_text()) + "\n")  # one call: other threads cannot write between
    out.flush()


@dataclass
class StepNote:
    """What a step found; reported when the step ends."""

    text: str = ""


@dataclass
class Progress:
    """Number and report the steps of a job, and keep their seconds for the training report.

    The parts of a step of another job are `nested`: each is reported as an update, when it ends.
    """

    total: int
    nested: bool = False
    done: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, detail: str = "") -> Iterator[StepNote]:
        """Report the start of a step and, unless it raises, its end with the text of the yielded note."""
        self.done += 1
        if not self.nested:
            _write(ProgressLine("started", detail, self.done, self.total, name))
        started, note = time.monotonic(), StepNote()
        yield note
        seconds = round(time.monotonic() - started, 2)
        self.seconds[name] = seconds
        if self.nested:
            report_update(f"{name}: {note.text or 'done'} ({seconds:.1f} s)")
            return
        _write(ProgressLine("finished", note.text, self.done, self.total, name, seconds))


def peak_mib() -> float:
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
