"""A Prometheus server on loopback that scrapes given targets every two seconds and evaluates the generated rules."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml
from deployments.monitoring.__main__ import FOLDER

from server_programs import report_missing

START_S = 60.0


@dataclass(frozen=True)
class PrometheusServer:
    url: str

    def query(self, expr: str) -> list[dict]:
        """Series of an instant query; raises AssertionError with what Prometheus says of an invalid one."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expr}, timeout=10).json()
        assert answer["status"] == "success", f"{expr}: {answer.get('error')}"
        return answer["data"]["result"]

    def read(self, path: str) -> dict:
        return httpx.get(f"{self.url}/api/v1/{path}", timeout=10).json()["data"]

    def wait_for(self, expr: str, limit_s: float = START_S) -> None:
        """Wait until a query has a result; raises TimeoutError with the state of the targets."""
        until = time.monotonic() + limit_s
        while not self.query(expr):
            if time.monotonic() > until:
                targets = self.read("targets")["activeTargets"]
                raise TimeoutError(f"no {expr}: {[(t['scrapeUrl'], t['lastError']) for t in targets]}")
            time.sleep(0.3)


@contextlib.contextmanager
def start_prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[PrometheusServer]:
    """Start a server whose jobs scrape one target (host and port) each; skips the test without the program."""
    if (program := shutil.which("prometheus")) is None:
        report_missing("no prometheus: apt-get install prometheus")
    jobs = [{"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()]
    document = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"},
        "rule_files": [str(write_fast_rules(folder))],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(document))
    address = f"127.0.0.1:{free_port()}"
    command = [
        program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'samples'}",
        f"--web.listen-address={address}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until_ready(f"http://{address}", process, folder / "prometheus.log")
        yield PrometheusServer(f"http://{address}")
    finally:
        process.terminate()
        process.wait(20)


def write_fast_rules(folder: Path) -> Path:
    """The generated rules, evaluated every second."""
    rules = yaml.safe_load((FOLDER / "rules.yaml").read_text())
    for group in rules["groups"]:
        group["interval"] = "1s"
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    return folder / "rules.yaml"


def wait_until_ready(url: str, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + START_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/-/ready", timeout=2).status_code == 200:
                return
        assert process.poll() is None and time.monotonic() < until, log.read_text()[-2_000:]
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
