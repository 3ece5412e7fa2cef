"""Run steps on a private cluster of several raylets in another program, and sample the memory of its processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

import psutil

from benchmarks.report import MIB
from handsell.config import Config
from handsell.core.ray_token import create_token, token_environment

SAMPLE_S = 0.5


@dataclass
class StepRun:
    """One step: its result and its peaks."""

    name: str
    seconds: float = 0.0
    driver_mib: float = 0.0
    worker_mib: float = 0.0  # resident memory of the largest worker, without shared pages
    worker: str = ""  # Ray task or actor that it ran
    total_mib: float = 0.0  # proportional set size of all processes of the cluster, without the driver
    disk_mib: float = 0.0
    result: str = ""  # SHA-256 of the files that the step wrote
    failed: str = ""


@dataclass
class Watch:
    """The steps so far, the last one running; shared by the reader of the output and the sampler."""

    steps: list[StepRun] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def run_on_nodes(config: Config, nodes: int, cpus: int, steps: list[str], least_free_gib: float) -> list[StepRun]:
    """Run the steps of one deployment on `nodes` raylets; the last step names what failed, if something did."""
    command = [sys.executable, "-m", "benchmarks.scale.nodes", str(config.source), str(nodes), str(cpus), *steps]
    token = token_environment(create_token(config.source.parent / "token" / "ray.token"))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | token
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
        env={**environment, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    watch = Watch([StepRun("start")])
    assert process.stdout is not None
    reader = threading.Thread(target=_read, args=(process.stdout, watch), daemon=True)
    reader.start()
    try:
        _sample(process, watch, least_free_gib)
    finally:
        _end(process)
    reader.join(timeout=10)
    done = watch.steps[1:] or watch.steps
    if process.returncode and not done[-1].failed:
        done[-1].failed = f"exit status {process.returncode}"
        print("\n".join(watch.lines[-25:]), flush=True)
    return done


def _read(output: IO[str], watch: Watch) -> None:
    """Follow the program's output: a line of JSON begins or ends a step."""
    for line in output:
        if not line.startswith("scale:"):
            watch.lines.append(line.rstrip())
            continue
        said = json.loads(line.removeprefix("scale:"))
        if said["event"] == "begin":
            watch.steps.append(StepRun(said["step"]))
            continue
        step = watch.steps[-1]
        step.seconds, step.driver_mib = said["seconds"], said["driver_mib"]
        step.disk_mib, step.result = said["disk_mib"], said["result"]


def _sample(process: subprocess.Popen[str], watch: Watch, least_free_gib: float) -> None:
    """Sample the cluster until the program ends; end the program if the machine runs out of memory."""
    driver = psutil.Process(process.pid)
    while process.poll() is None:
        with suppress(psutil.Error, OSError):
            _sample_cluster(driver, watch.steps[-1])
        free = psutil.virtual_memory().available / 2**30
        if free < least_free_gib:
            watch.steps[-1].failed = f"ended with {free:.1f} GiB of memory free"
            return
        time.sleep(SAMPLE_S)


def _sample_cluster(driver: psutil.Process, step: StepRun) -> None:
    total = 0.0
    for process in driver.children(recursive=True):
        with suppress(psutil.Error, OSError):
            memory = process.memory_full_info()
            total += memory.pss / MIB
            name, own = (process.cmdline() or ["?"])[0], (memory.rss - memory.shared) / MIB
            if own > step.worker_mib and name.startswith("ray::"):
                step.worker_mib, step.worker = own, name.split()[0].removeprefix("ray::")[:36]
    step.total_mib = max(step.total_mib, total)


def _end(process: subprocess.Popen[str]) -> None:
    """End the program and everything that it started."""
    started = []
    with suppress(psutil.Error):
        started = psutil.Process(process.pid).children(recursive=True)
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
    for one in started:
        with suppress(psutil.Error):
            one.kill()
    process.kill()
    process.wait()
