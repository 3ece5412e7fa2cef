"""Commands of handsell that a page starts: what takes long, or memory and libraries that the console does not load.

Each runs in a process of its own with low priority, one at a time. The last outcome of each command is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from handsell.core.tools import find_plain_interpreter

log = logging.getLogger(__name__)

KEPT = 64  # outcomes
LIMIT_S = 900.0
NICENESS = 10
LONGEST_ERROR = 600  # characters


@dataclass(slots=True)
class CommandRun:
    """A command that waits, runs or has ended; `value` is the JSON that it has printed, else its text."""

    arguments: tuple[str, ...]
    asked: float
    began: float | None = None
    ended: float | None = None
    value: Any = None
    problem: str = ""  # why it has no value

    @property
    def is_over(self) -> bool:
        return self.ended is not None

    @property
    def age_s(self) -> float:
        """Seconds since it has ended, 0 before."""
        return 0.0 if self.ended is None else time.time() - self.ended


class BackgroundCommands:
    def __init__(self, limit_s: float = LIMIT_S):
        self._limit_s, self._turn = limit_s, asyncio.Semaphore(1)
        self._runs: OrderedDict[tuple[str, ...], CommandRun] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def find(self, *arguments: str) -> CommandRun | None:
        """Return the last run of a command, None if it was not started yet."""
        return self._runs.get(arguments)

    def start(self, *arguments: str) -> CommandRun:
        """Run `handsell ARGUMENTS…`, unless it waits or runs already."""
        run = self._runs.get(arguments)
        if run is not None and not run.is_over:
            return run
        run = self._runs[arguments] = CommandRun(arguments, time.time())
        self._runs.move_to_end(arguments)
        for old in [name for name, one in self._runs.items() if one.is_over][: max(len(self._runs) - KEPT, 0)]:
            del self._runs[old]
        task = asyncio.get_running_loop().create_task(self._run(run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    async def wait(self, *arguments: str) -> CommandRun:
        """Start a command, and return when it is over."""
        run = self.start(*arguments)
        while not run.is_over:
            await asyncio.sleep(0.02)
        return run

    async def close(self) -> None:
        """End the command that runs."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, run: CommandRun) -> None:
        try:
            async with self._turn:
                run.began = time.time()
                async with asyncio.timeout(self._limit_s):
                    run.value = await _call(run.arguments)
        except TimeoutError:
            run.problem = f"It took longer than {self._limit_s / 60:.0f} minutes and was stopped."
        except CommandFailedError as error:
            run.problem = str(error)
        except Exception as error:
            log.exception("handsell %s could not run", " ".join(run.arguments))
            run.problem = f"It could not be started: {error}"
        finally:
            run.ended = time.time()


class CommandFailedError(Exception):
    """A command ended with an error; its text is the message of the command."""


async def _call(arguments: tuple[str, ...]) -> Any:
    """Run a command and return the JSON that it prints, else its text; raises CommandFailedError.

    Not by asyncio's own processes: cancelled while one starts, they wait for ever.
    """
    process = subprocess.Popen(
        [find_plain_interpreter(), "-m", "handsell", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
    try:
        out, err = await asyncio.to_thread(process.communicate)
    finally:
        if process.returncode is None:
            process.kill()  # the thread then ends
    text = out.decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        if process.returncode:
            raise CommandFailedError(_find_message(err.decode(errors="replace") or text)) from None
        return text


def _find_message(text: str) -> str:
    """Return what a command says about its error, without the lines before it."""
    lines = text.strip().splitlines() or ["it ended without a message"]
    found = [number for number, line in enumerate(lines) if line.startswith("error:")]
    message = " ".join(lines[found[-1] :]) if found else lines[-1]
    return message.removeprefix("error:").strip()[:LONGEST_ERROR]
