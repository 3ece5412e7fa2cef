"""Peak memory of this process."""

from __future__ import annotations

import resource
from pathlib import Path


def reset_peak_memory() -> None:
    """Reset the peak, if the operating system supports it (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def read_peak_mib() -> float:
    """Peak resident memory of this process in MiB, since `reset_peak_memory` on Linux."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
