"""What a job is doing, how far it is, and how long it took: one line a step, fit for a job's log."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Numbers the steps of a job and keeps their seconds for the report."""

    total: int
    done: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def step(self, name: str, detail: str = "") -> Iterator[Note]:
        self.done += 1
        print(f"[{self.done}/{self.total}] {name}{': ' + detail if detail else ''} …", flush=True)
        begun, note = time.monotonic(), Note()
        yield note
        took = time.monotonic() - begun
        self.seconds[name] = round(took, 2)
        print(f"[{self.done}/{self.total}] {name}: {note.text or 'done'} ({took:.1f} s)", flush=True)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @staticmethod
    def peak_mib() -> float:
        """Peak memory of this process in MiB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass
class Note:
    """What a step found; printed when it ends."""

    text: str = ""
