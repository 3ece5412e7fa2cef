"""What Ray's processes of a local cluster do without, to need less memory (decision 047).

Ray calls both functions by their paths: `leave_out_pandas` at the start of each replica, `leave_out_proxies` at that of
Serve's controller.
"""

from __future__ import annotations

from typing import Any

from handsell.features.storage.absent_modules import leave_out

REPLICA_HOOK = f"{__name__}.leave_out_pandas"
CONTROLLER_HOOK = f"{__name__}:leave_out_proxies"


def leave_out_pandas() -> None:
    """Import Ray Serve without pandas, of which it needs one class; code that imports pandas later finds it."""
    with leave_out("pandas"):
        import ray.serve  # noqa: F401


def leave_out_proxies() -> None:
    """Start none of Serve's own proxies: HAProxy takes the requests."""
    from ray.serve._private.proxy_state import ProxyStateManager

    def start_none(manager: Any, nodes: Any) -> None:
        """Leave the nodes without a proxy."""

    ProxyStateManager._start_proxies_if_needed = start_none  # type: ignore[assignment]
