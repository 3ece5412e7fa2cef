"""The command lines of Ray, Serve and Feast."""

from __future__ import annotations

import sys

MODULES = {"ray": "ray.scripts.scripts", "serve": "ray.serve.scripts", "feast": "feast.cli.cli"}


def start_command(tool: str) -> list[str]:
    """Return the beginning of a tool's command line: this interpreter, and the module behind the tool's script.

    The scripts in `.venv/bin` begin with the path of the interpreter, which must be short and without quotes. Modules
    of the working directory are not imported.
    """
    return [sys.executable, "-P", "-m", MODULES[tool]]
