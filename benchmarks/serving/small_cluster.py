"""A local cluster that serves the applications of a benchmark, and ends with it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.serving.layouts import free_port
from handsell.config import load_config
from handsell.local import cluster, service

ROOT = Path(__file__).parents[2]
START_S = 90.0


@contextmanager
def serve_applications(paths: Mapping[str, str], variables: Mapping[str, Mapping[str, str]]) -> Iterator[list[str]]:
    """Serve applications, by name their import paths and environment variables; yield the URL of each when it answers.

    Raises TimeoutError for one that does not.
    """
    with tempfile.TemporaryDirectory(prefix="handsell-benchmark-") as folder:
        os.environ["HANDSELL_HOME"] = folder
        source = Path(folder) / "small.toml"
        source.write_text(
            f'name = "small"\n[serving]\nport = {free_port()}\n'
            f"[jobs]\ngcs_port = {free_port()}\ndashboard_port = {free_port()}\nnum_cpus = 2\nobject_store_mib = 100\n"
        )
        config = load_config(source)
        head = cluster.start(config)
        found = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        applications: list[dict[str, Any]] = [
            {
                "name": name, "route_prefix": f"/{name}", "import_path": path,
                "runtime_env": {"env_vars": found | dict(variables.get(name, {}))},
            }
            for name, path in paths.items()
        ]  # fmt: skip
        try:
            http = {"host": config.serving.host, "port": config.serving.port}
            file = Path(folder) / "serve.yaml"
            file.write_text(yaml.safe_dump({"http_options": http, "applications": applications}))
            service.send_serve_file(file, head)
            urls = [f"{service.service_url(config)}/{name}/" for name in paths]
            for url in urls:
                wait_for(url)
            yield urls
        finally:
            cluster.stop(config)
            shutil.rmtree(cluster.ray_folder(config), ignore_errors=True)


def wait_for(url: str) -> None:
    """Wait until one call is answered; raises TimeoutError."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            if httpx.get(url, params={"calls": 1}, timeout=30, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"{url} was not ready within {START_S:.0f} s")
