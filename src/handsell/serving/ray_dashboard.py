"""Start Ray's dashboard without pandas: `python -P -m handsell.serving.ray_dashboard …/ray/dashboard/dashboard.py …`.

Serve imports pandas to support data frames in requests: 30 MiB in the process that has Serve's API. The dashboard forks
its processes from a server, which imports this module first.
"""

from __future__ import annotations

import multiprocessing.forkserver
import runpy
import sys
from collections.abc import Callable

from handsell.features.storage.absent_modules import AbsentModule

sys.meta_path.insert(0, AbsentModule("pandas"))


def preload_here(preload: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
    """Return `set_forkserver_preload` with this module before all others."""
    return lambda names: preload([__spec__.name, *names])


def main() -> None:
    sys.argv = sys.argv[1:]
    multiprocessing.forkserver.set_forkserver_preload = preload_here(  # type: ignore[assignment]
        multiprocessing.forkserver.set_forkserver_preload
    )
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
