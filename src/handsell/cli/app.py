"""The `handsell` command: all commands in the order of the data flow, and how errors are shown.

Modules of this folder import heavy libraries (NumPy, Ray, Feast …) and the modules that need them inside the command
functions only: `handsell --help` and usage errors then answer without the seconds that those imports take.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence

import typer

from handsell.cli import (
    bundles,
    data,
    experiments,
    features,
    keys,
    local,
    off_policy,
    operations,
    people,
    plan,
    rules,
    serving,
    simulation,
    training,
)
from handsell.core.errors import HandsellError, StorageError
from handsell.core.proxies import bypass_proxies
from handsell.core.tools import find_plain_interpreter
from handsell.jobs.progress import report_error

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors of a disk, which name no file

app = typer.Typer(
    name="handsell", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="A recommender platform on Ray: prepare data, train and evaluate models, serve recommendations.",
)  # fmt: skip
COMMANDS = {
    "Everything on this machine": (local.init, local.up, local.down, local.env),
    "Data": (data.doctor, data.compact, data.data),
    "Features": (features.features, features.apply, features.materialize),
    "Training": (training.train, training.evaluate, training.quality),
    "Serving": (serving.serve, serving.recommend, serving.batch, serving.skew),
    "Experiments": (off_policy.ope, simulation.simulate),
    "Operations": (plan.plan, operations.clean, operations.backup, operations.restore, people.erase, operations.audit),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.command("hash", rich_help_panel="Operations")(operations.hash_ids)
GROUPS = {
    "import": data.import_app, "bundles": bundles.app, "experiments": experiments.app, "keys": keys.app,
    "rules": rules.app,
}  # fmt: skip
for name, group in GROUPS.items():
    app.add_typer(group, name=name, rich_help_panel="Groups of commands")


def main() -> None:
    """Run the command line; exit with its status."""
    prepare_process()
    try:
        _restart_if_needed()
    except HandsellError as error:
        report_error(str(error))
        sys.exit(1)
    sys.exit(run_command(sys.argv[1:]))


def prepare_process() -> None:
    """Prepare the environment and the output of a process that runs commands."""
    os.environ.update(bypass_proxies())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal whose encoding lacks a character shows a question mark


def run_command(arguments: Sequence[str]) -> int:
    """Run a command; return its exit status, 1 with one message, without a traceback, for an error of the user's input.

    These are all HandsellErrors, and files that cannot be read or written. Where object storage refuses a call or does
    not answer, the status is 2.
    """
    try:
        app(list(arguments))
    except SystemExit as end:  # typer ends every command so
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except StorageError as error:
        report_error(str(error))
        return 2  # nothing is wrong with the data: the same command may work later
    except HandsellError as error:
        report_error(str(error))
        return 1
    except OSError as error:
        cause = getattr(error, "cause", None)  # Ray wraps the error of a task, and drops the name of its file
        failed = cause if isinstance(cause, OSError) else error
        if failed.filename is None and failed.errno not in FULL:
            raise
        what = f"use {failed.filename}" if failed.filename else "write"
        report_error(f"cannot {what}: {failed.strerror}. State is kept in $HANDSELL_HOME, by default in .handsell")
        return 1
    return 0


def _restart_if_needed() -> None:
    """Replace this process by the same command where paths of its interpreter or its arguments could not be used.

    Ray needs a path of Python without spaces. In Python's UTF-8 mode all processes agree about paths; the output keeps
    the encoding of the terminal.
    """
    executable, is_utf8 = find_plain_interpreter(), sys.getfilesystemencoding() == "utf-8"
    if executable == sys.executable and is_utf8:
        return
    terminal = f"{sys.stdout.encoding if sys.stdout else 'ascii'}:replace"
    given = {} if is_utf8 else {"PYTHONUTF8": "1", "PYTHONIOENCODING": terminal}
    os.execve(executable, [executable, "-m", "handsell", *sys.argv[1:]], {**os.environ, **given})
