"""Throughput and p50 of answers over HTTP beside those of an empty FastAPI application, in turns.

    make up && make down && python -m benchmarks answer_cost
    git worktree add ../before HEAD~5 && python -m benchmarks answer_cost --before ../before

A gateway with its stages in one uvicorn process answers wrk at one connection: users drawn from many, whose answers are
all computed, or from a few, who get their answers again. Each server has a copy of the deployment's state. All are
started first and then take short turns, and ratios are to the empty application's turn in the same round; figures are
medians over the rounds. On a busy machine only CPU time counts: a long answer waits for other processes, a short one
does not. HAProxy and Ray Serve are not in them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import tomli_w

from benchmarks.report import write_report
from benchmarks.serving.layout_comparison import REPEATED, require_wrk, run_wrk
from benchmarks.serving.layouts import free_port
from benchmarks.serving.smoke import sample_users
from handsell.config import Config, load_config

HERE = Path(__file__).parents[2]
START_S = 600.0  # beside much other work
WARM_S = 3.0
EMPTY = "empty FastAPI application"


@dataclass(frozen=True)
class Server:
    """A running server and the file of the users who are asked for."""

    name: str
    url: str
    users: Path
    process: psutil.Process

    def measure(self, seconds: float) -> dict[str, float]:
        """Let wrk ask over one connection; also return the CPU ms of each request."""
        before = self.process.cpu_times()
        found = run_wrk(self.url, self.users, 1, seconds)
        after = self.process.cpu_times()
        used = after.user + after.system - before.user - before.system
        return {**found, "cpu": 1e3 * used / max(found["n"], 1)}


@contextlib.contextmanager
def start_server(name: str, command: list[str], env: dict[str, str], url: str, users: Path) -> Iterator[Server]:
    """Start a process and wait until it is ready; it ends with the context."""
    process = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + START_S
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/readyz", timeout=10, trust_env=False).status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{name} is not ready: exit status {process.poll()}")
            time.sleep(0.5)
        yield Server(name, url, users, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(30)


def start_gateway(
    name: str, checkout: Path, config: Config, folder: Path, users: Path, reuses: bool
) -> contextlib.AbstractContextManager[Server]:
    """Start the gateway of a checkout on a copy of the deployment's state."""
    home = folder / name.replace(" ", "_").replace(",", "")
    shutil.copytree(config.state, home / config.state.name)
    raw, port = tomllib.loads(config.source.read_text()), free_port()
    serving = raw.setdefault("serving", {})
    serving |= {"host": "127.0.0.1", "port": port, "feature_log_share": 0.0}
    if not reuses:
        serving["reuse_bytes"] = 0
    path = home / "deployment.toml"
    path.write_text(tomli_w.dumps(raw))
    env = {"HANDSELL_HOME": str(home), "PYTHONPATH": f"{checkout / 'src'}:{checkout}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.serving.uvicorn_server", str(path)]
    return start_server(name, command, env, f"http://127.0.0.1:{port}", users)


def write_users(path: Path, users: list[str]) -> Path:
    path.write_text("\n".join(users) + "\n")
    return path


def start_all(options: argparse.Namespace, stack: contextlib.ExitStack) -> list[Server]:
    """Start the empty application and the gateways, computing and reusing, of both versions."""
    config, folder = load_config(options.config), Path(stack.enter_context(tempfile.TemporaryDirectory()))
    every = write_users(folder / "all.txt", sample_users(config, options.users))
    few = write_users(folder / "few.txt", sample_users(config, REPEATED))
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.serving.empty_application", str(port)]
    servers = [
        stack.enter_context(start_server(EMPTY, command, {"PYTHONPATH": str(HERE)}, f"http://127.0.0.1:{port}", every))
    ]
    checkouts = {"now": HERE} | ({"before": options.before.resolve()} if options.before else {})
    for version, checkout in checkouts.items():
        for what, users in (("computed", every), ("repeated", few)):
            gateway = start_gateway(f"{version}, {what}", checkout, config, folder, users, what == "repeated")
            servers.append(stack.enter_context(gateway))
    return servers


def compare(rounds: list[dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """Return a row for each server: medians, and medians of the ratios to the empty application's turn of a round."""
    rows = []
    for name in rounds[0]:
        found = {key: statistics.median(one[name][key] for one in rounds) for key in ("per_second", "p50", "cpu")}
        rows.append(
            {
                "server": name, "per second": found["per_second"], "p50 ms": found["p50"], "CPU ms": found["cpu"],
                "throughput ×": statistics.median(one[name]["per_second"] / one[EMPTY]["per_second"] for one in rounds),
                "p50 ×": statistics.median(one[name]["p50"] / one[EMPTY]["p50"] for one in rounds),
                "CPU ×": statistics.median(one[name]["cpu"] / one[EMPTY]["cpu"] for one in rounds),
                "failed": sum(one[name]["failed"] for one in rounds),
                "degraded": sum(one[name]["degraded"] for one in rounds),
            }
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks answer_cost", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--before", type=Path, help="another checkout, whose gateways take turns with this one's")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3, help="length of a turn")
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    require_wrk()
    with contextlib.ExitStack() as stack:
        servers = start_all(options, stack)
        for server in servers:
            server.measure(WARM_S)
        print("all servers are ready and warm: measuring", flush=True)
        rounds = [{server.name: server.measure(options.seconds) for server in servers} for _ in range(options.rounds)]
    about = {"rounds": options.rounds, "seconds": options.seconds, "users": options.users}
    write_report("answer_cost", compare(rounds), about, options.json)


if __name__ == "__main__":
    main()
