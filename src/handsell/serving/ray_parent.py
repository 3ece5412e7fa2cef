"""The parent of Ray's processes, in place of `ray start --block`, with a tenth of its memory.

`ray start` replaces itself with this program when all of Ray has started (see ray_head.py): the process id, the
children and their tie to it stay. A child's tie is the kernel's: it is killed when its parent ends, however that ends.

    python -I -S ray_parent.py FOLDER NAME=PID …      # FOLDER of Ray's logs, and its processes

As `ray start --block` does, it ends all when one of the processes ends unexpectedly, and with SIGTERM. Only built-in
modules and few of the standard library are imported.
"""

import os
import signal
import sys
import time

EXPECTED = (0, signal.SIGTERM, -signal.SIGTERM, 128 + signal.SIGTERM)  # exit codes of processes that were asked to end
GRACE_S = 1.0  # for a process to end after SIGTERM
FIRST = ("raylet", "gcs_server")  # the raylet ends its workers, which need the GCS until then
LOG = "ray_process_exit.log"


class Stop(BaseException):
    """SIGTERM has arrived."""


def watch(folder: str, processes: dict[int, str]) -> int:
    """Wait for the processes (pid → name) until one ends unexpectedly or SIGTERM arrives; return the exit code."""
    running = dict(processes)
    try:
        while running:
            pid, status = os.waitpid(-1, 0)
            name, code = running.pop(pid, None), os.waitstatus_to_exitcode(status)
            if name is not None and code not in EXPECTED:
                _report(folder, f"Some Ray subprocesses exited unexpectedly: {name} [exit code={code}]")
                _report(folder, "Remaining processes will be killed.")
                return 1
        return 0
    except Stop:
        return 1  # as `ray start --block`
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end(running)


def end(processes: dict[int, str]) -> None:
    """End children, one after the other: ask, and kill after GRACE_S."""
    order = sorted(processes.items(), key=lambda one: FIRST.index(one[1]) if one[1] in FIRST else len(FIRST))
    for pid, _ in order:
        try:
            os.kill(pid, signal.SIGTERM)
            until = time.monotonic() + GRACE_S
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > until:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    break
                time.sleep(0.02)
        except (ProcessLookupError, ChildProcessError):
            continue


def _report(folder: str, line: str) -> None:
    """Write a line to the output, which is ray.log, and to the file in which Ray keeps such ends."""
    print(line, file=sys.stderr, flush=True)
    try:
        with open(f"{folder}/{LOG}", "a", encoding="utf-8") as log:  # noqa: PTH123 (pathlib takes memory)
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
    except OSError:
        pass


def _stop(*_: object) -> None:
    raise Stop


def main(arguments: list[str]) -> int:
    os.closerange(3, 65536)  # sockets of `ray start`
    folder, *named = arguments
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    pairs = [one.rpartition("=") for one in named]
    return watch(folder, {int(pid): name for name, _, pid in pairs})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
