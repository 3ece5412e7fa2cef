"""Steps that are done once per input: each says what it does, how long it took, and is skipped when unchanged."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from handsell.core.errors import HandsellError


@dataclass
class Steps:
    """Runs named steps in order; `folder` remembers on which inputs each was done."""

    folder: Path
    total: int
    console: Console
    number: int = 0
    before: str = ""  # digest of all inputs so far: a step depends on the ones before it

    def run(self, name: str, doing: str, act: Callable[[], str], inputs: object = None, always: bool = False) -> None:
        """Do `act` (which returns what came of it) unless it was done on the same inputs.

        Raises HandsellError that names the step, why it failed and what to do.
        """
        self.number += 1
        head = f"[bold]{self.number}/{self.total} {name}[/bold]"
        self.before = hashlib.sha256(f"{self.before}|{name}|{json.dumps(inputs, sort_keys=True)}".encode()).hexdigest()
        mark = self.folder / f"{name.replace(' ', '_')}.json"
        if not always and mark.exists() and json.loads(mark.read_text())["inputs"] == self.before:
            self.console.print(f"{head}: unchanged, skipped")
            return
        self.console.print(f"{head}: {doing} …")
        begun = time.monotonic()
        try:
            result = act()
        except HandsellError as error:
            raise HandsellError(f"step {self.number}/{self.total} ({name}) failed: {error}") from error
        took = time.monotonic() - begun
        self.console.print(f"    {result} [dim]({took:.1f} s)[/dim]", soft_wrap=True, highlight=False)
        if not always:
            self.folder.mkdir(parents=True, exist_ok=True)
            mark.write_text(json.dumps({"inputs": self.before, "result": result, "seconds": round(took, 1)}))


def code_digest() -> str:
    """Digest of handsell's own source: another version redoes what it computes."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for source in sorted(root.rglob("*.py")):
        if source.relative_to(root).parts[0] not in ("local", "serving", "console"):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
