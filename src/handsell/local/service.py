"""Deploy the Serve application on the local cluster with the stock `serve deploy`, and wait for it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import yaml

from handsell.config import Config, find_shipped
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout
from handsell.local.bundles import open_bundles, resolve
from handsell.local.cluster import RayHead

READY_TIMEOUT_S = 120.0
FOLLOW_TIMEOUT_S = 90.0


def deploy(config: Config, head: RayHead, topology: str) -> str:
    """Write the deployment's Serve file from deployments/serve/<topology>.yaml and hand it to `serve deploy`."""
    submit(render(config, topology), head)
    return f"{topology} at {address(config)}"


def submit(path: Path, head: RayHead) -> None:
    """Hand a Serve file to the stock `serve deploy`; raises HandsellError with what it said."""
    command = [str(Path(sys.executable).parent / "serve"), "deploy", "--address", head.dashboard, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **head.environment})
    if done.returncode:
        raise HandsellError(f"`{' '.join(command[-5:])}` failed:\n{done.stderr.strip()[-2000:]}")


def render(config: Config, topology: str) -> Path:
    """The find_shipped Serve file with this deployment's config, host and port filled in."""
    source = find_shipped(config.source, f"deployments/serve/{topology}.yaml")
    if source is None:
        raise HandsellError(
            f"no deployments/serve/{topology}.yaml above {config.source}, beside the package or in {Path.cwd()}: run "
            "inside a checkout"
        )
    document = yaml.safe_load(source.read_text())
    document["http_options"] = {
        **document.get("http_options", {}), "host": config.serving.host, "port": config.serving.port,
    }  # fmt: skip
    digest = hashlib.sha256(config.source.read_bytes()).hexdigest()[:12]
    for application in document["applications"]:
        application["args"] |= {"config": str(config.source), "bundle": "live"}  # replicas follow the live one
        variables = application.setdefault("runtime_env", {}).setdefault("env_vars", {})
        variables["HANDSELL_CONFIG_DIGEST"] = digest  # a changed config is a changed application: replicas restart
    path = Layout(config.state).state / "run" / f"serve-{topology}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def address(config: Config) -> str:
    return f"http://{config.serving.host}:{config.serving.port}"


def wait_until_ready(config: Config) -> str:
    """Poll /readyz until the live bundle serves (its predecessor may still answer); raises HandsellError."""
    bundle = resolve(open_bundles(config), "live")
    deadline, last = time.monotonic() + READY_TIMEOUT_S, "no answer"
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{address(config)}/readyz", timeout=5.0)
            if answer.status_code == 200 and answer.json()["release"]["bundle"] == bundle:
                return f"ready, serving bundle {bundle}"
            last = answer.text[:500]
        except httpx.HTTPError as error:
            last = repr(error)
        time.sleep(0.5)
    raise HandsellError(
        f"{address(config)}/readyz did not turn ready with bundle {bundle} within {READY_TIMEOUT_S:.0f} s; "
        f"it last said: {last}. The replicas' logs are in the dashboard, http://127.0.0.1:{config.jobs.dashboard_port}"
    )


def wait_for_switch(config: Config, bundle: str) -> str:
    """What came of a bundle that was made live: the seconds until the running service served it, or why it does not."""
    begun, last = time.monotonic(), None
    while time.monotonic() - begun < FOLLOW_TIMEOUT_S:
        try:
            last = httpx.get(f"{address(config)}/readyz", timeout=5.0).json()
        except (httpx.HTTPError, ValueError):
            if last is None:
                return f"no service answers at {address(config)}; the next one serves it"
            last = {}
        if (last.get("release") or {}).get("bundle") == bundle:
            return f"served by {address(config)} after {time.monotonic() - begun:.1f} s"
        refused = last.get("refused") or {}
        if refused.get("bundle") == bundle:
            raise HandsellError(
                f"{address(config)} refuses {bundle} and serves {last['release']['bundle']} on: {refused['reason']}"
            )
        time.sleep(0.2)
    raise HandsellError(
        f"{address(config)} did not turn to {bundle} within {FOLLOW_TIMEOUT_S:.0f} s; it last said {last}. A service "
        f"that was deployed with a bundle's id stays with it: `handsell serve {config.source}` deploys one that follows"
    )
