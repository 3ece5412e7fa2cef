"""Run the `feast` command in a process of its own: a copy of this one, which has imported Feast, where that is safe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from handsell.core.processes.process_copy import FinishedProcess, ProcessCopy, can_copy
from handsell.core.tools import start_command


def run_feast(arguments: Sequence[str], changes: Mapping[str, str]) -> FinishedProcess:
    """Run `feast` with `changes` to the environment; the files of a repository are imported in its process alone."""
    if can_copy():
        return ProcessCopy(lambda: _become_feast(arguments, changes)).wait()
    done = subprocess.run(
        [*start_command("light feast"), *arguments], env=os.environ | changes, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return FinishedProcess(done.returncode, done.stdout, done.stderr)


def _become_feast(arguments: Sequence[str], changes: Mapping[str, str]) -> None:
    os.environ.update(changes)
    if not sys.flags.safe_path and sys.path[:1] in ([""], [str(Path.cwd())]):
        del sys.path[0]  # modules of the working directory are not those of the repository
    from feast.cli.cli import cli

    cli(list(arguments), prog_name="feast")
