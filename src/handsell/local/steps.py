"""The steps of `make up`: run in order, reported with their time, and skipped if their inputs are unchanged."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from handsell.core.errors import HandsellError


@dataclass
class Steps:
    """Runs named steps in order; `folder` holds, for each step, a digest of the inputs it last ran with."""

    folder: Path
    total: int
    console: Console
    number: int = 0
    digest: str = ""  # of the inputs of all steps so far: a step depends on those before it

    def run(
        self,
        name: str,
        doing: str,
        act: Callable[[], str],
        inputs: object = None,
        always: bool = False,
        feeds_later: bool = True,
        is_there: Callable[[], bool] = lambda: True,
    ) -> None:
        """Call `act`, which returns its result in a sentence, unless the step has run with the same inputs.

        `doing` describes the step; `always` runs it even if inputs are unchanged; no later step depends on the inputs
        of a step with `feeds_later` false; `is_there` tells whether the step's results still exist. Raises
        HandsellError that names the step and the cause.
        """
        self.number += 1
        head = f"[bold]{self.number}/{self.total} {name}[/bold]"
        digest = hashlib.sha256(f"{self.digest}|{name}|{json.dumps(inputs, sort_keys=True)}".encode()).hexdigest()
        if feeds_later:
            self.digest = digest
        record = self.folder / f"{name.replace(' ', '_')}.json"
        if not always and _read_inputs(record) == digest and is_there():
            self.console.print(f"{head}: unchanged, skipped")
            return
        self.console.print(f"{head}: {doing} …")
        record.unlink(missing_ok=True)  # a step that fails may have replaced a part of its earlier results
        started = time.monotonic()
        try:
            result = act()
        except HandsellError as error:
            raise HandsellError(f"step {self.number}/{self.total} ({name}) failed: {error}") from error
        seconds = time.monotonic() - started
        text = Text.assemble(f"    {result} ", (f"({seconds:.1f} s)", "dim"))  # no markup: the result may hold ids
        self.console.print(text, soft_wrap=True)
        if not always:
            self.folder.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps({"inputs": digest, "result": result, "seconds": round(seconds, 1)}))


def _read_inputs(record: Path) -> str | None:
    """Return the digest of a step's record; None if the record is missing, empty or damaged."""
    try:
        return json.loads(record.read_text())["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
