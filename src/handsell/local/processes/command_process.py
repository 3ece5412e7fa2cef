"""Several commands in one process: it runs those that its standard input names.

Each would otherwise begin with seconds of imports. A line of the input is a JSON list, the command with its arguments;
the output is that of the commands, each followed by a line with its exit status.
"""

from __future__ import annotations

import json
import os

from handsell.cli.app import prepare_process, run_command
from handsell.local.processes.child_process import format_end


def main() -> None:
    """Run the commands in order until the input ends."""
    prepare_process()
    with os.fdopen(os.dup(0), encoding="utf-8") as commands:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)  # programs that a command starts do not read the next command
        os.close(nothing)
        for line in commands:
            print(format_end(run_command(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
