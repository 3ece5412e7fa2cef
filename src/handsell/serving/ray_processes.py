"""What Ray's processes of a local cluster do without, to need less memory (decision 047).

Ray calls these functions by their paths: `leave_out_pandas` at the start of each replica, `import_serve` and
`leave_out_proxies` at that of Serve's controller.
"""

from __future__ import annotations

import sys
from typing import Any

from handsell.features.storage.absent_modules import AwaitedModule, leave_out

REPLICA_HOOK = f"{__name__}.leave_out_pandas"
REPLICA_HOOK_VARIABLE = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"  # Ray's; it takes the path of a function
SERVE_HOOK = f"{__name__}.import_serve"
CONTROLLER_HOOK = f"{__name__}:leave_out_proxies"


def leave_out_pandas() -> None:
    """Import Ray Serve and Arrow without pandas; code that imports pandas later finds it, and Arrow then knows it.

    Serve needs one class of it. Arrow imports it to ask whether a value is a data frame.
    """
    import_serve()
    if "pandas" in sys.modules:
        return
    with leave_out("pandas"):
        from pyarrow.lib import _pandas_api  # type: ignore[attr-defined]

        _ = _pandas_api.have_pandas  # Arrow keeps the answer
    sys.meta_path.insert(0, AwaitedModule("pandas", lambda: _pandas_api.pd))


def import_serve() -> None:
    """Import Ray Serve without pandas."""
    with leave_out("pandas"):
        import ray.serve  # noqa: F401


def leave_out_proxies() -> None:
    """Start none of Serve's own proxies: HAProxy takes the requests."""
    from ray.serve._private.proxy_state import ProxyStateManager

    def start_none(manager: Any, nodes: Any) -> None:
        """Leave the nodes without a proxy."""

    ProxyStateManager._start_proxies_if_needed = start_none  # type: ignore[assignment]
