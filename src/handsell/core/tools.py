"""The interpreter with which Ray, Serve and Feast run, in a folder of any name."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from pathlib import Path

from handsell.core.errors import HandsellError
from handsell.core.paths import find_socket_folder

MODULES = {
    "ray": "ray.scripts.scripts",
    "feast": "feast.cli.cli",
    "light feast": "handsell.features.storage.feast_command",  # the same in a third of the time
}


def start_command(tool: str) -> list[str]:
    """Return the beginning of a tool's command line: this interpreter, and the module behind the tool's script.

    The scripts in `.venv/bin` begin with the path of the interpreter, which must be short and without quotes. Modules
    of the working directory are not imported.
    """
    return [sys.executable, "-P", "-m", MODULES[tool]]


def find_plain_interpreter() -> str:
    """Return the path of this interpreter without spaces, quotes and the like, which a link in /tmp provides.

    Ray starts its workers through a shell and does not quote the interpreter. Raises HandsellError if the name of the
    link is taken.
    """
    if shlex.quote(sys.executable) == sys.executable or not Path(sys.executable).is_relative_to(sys.prefix):
        return sys.executable
    link = find_socket_folder() / f"handsell-python-{hashlib.sha256(os.fsencode(sys.prefix)).hexdigest()[:8]}"
    try:
        if not link.is_symlink():
            link.symlink_to(sys.prefix)
        if link.lstat().st_uid != os.geteuid() or link.resolve() != Path(sys.prefix).resolve():
            raise FileExistsError
    except OSError as error:
        raise HandsellError(
            f"cannot use the link {link} to {sys.prefix} ({error.strerror or 'taken'}): Ray needs a path of Python "
            "without spaces and quotes. Remove the link, or move the environment"
        ) from None
    return str(link / Path(sys.executable).relative_to(sys.prefix))
