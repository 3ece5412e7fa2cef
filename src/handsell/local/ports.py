"""Check that the ports of a deployment are free, and name the process that holds one."""

from __future__ import annotations

import errno
import socket

import psutil

from handsell.core.errors import HandsellError


def require_free_port(name: str, host: str, port: int, ours: frozenset[int] = frozenset()) -> None:
    """Raise HandsellError if `host:port` cannot be listened on, unless a process among `ours` (pids) does.

    `name` is the setting of the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return
        except OSError as error:
            cause = error
    if cause.errno != errno.EADDRINUSE:
        raise HandsellError(
            f"cannot listen on {host}:{port} ({cause.strerror}): set {name}, or the host, to one of this machine"
        )
    holder = find_listener(port)
    if holder is not None and holder.pid in ours:
        return
    raise HandsellError(
        f"port {port} is taken by another program{_describe(holder)}: stop that program (`handsell down CONFIG` stops "
        f"another deployment), or set {name} in the config to a free port"
    )


def find_listener(port: int) -> psutil.Process | None:
    """Return the process that listens on a port, or None if the system does not tell."""
    try:
        found = psutil.net_connections("tcp")
        pids = [one.pid for one in found if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid]
        return psutil.Process(pids[0]) if pids else None
    except (psutil.Error, OSError):
        return None


def list_own_pids(pid: int) -> frozenset[int]:
    """Return the pids of a process and all that it started."""
    try:
        return frozenset([pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))])
    except psutil.Error:
        return frozenset()


def _describe(process: psutil.Process | None) -> str:
    if process is None:
        return ""
    try:
        return f" (pid {process.pid}, {process.name()})"
    except psutil.Error:
        return f" (pid {process.pid})"
