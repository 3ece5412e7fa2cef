"""Deploy the Serve application on the local cluster, as `serve deploy` does, and wait until it is ready."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

import handsell.console
from handsell.access.exposure import find_exposure
from handsell.bundles.opening import open_bundles
from handsell.config import Config, find_shipped
from handsell.core.errors import ConfigError, HandsellError
from handsell.core.paths import Layout, find_ray_folder
from handsell.core.proxies import is_own_host
from handsell.events.store.opening import STORE_VARIABLE, has_one_writer
from handsell.jobs.step_records import code_digest, digest_files
from handsell.jobs.store_writer import WRITER
from handsell.local.bundles import resolve_bundle
from handsell.local.cluster import RayHead
from handsell.local.ingress import process as ingress
from handsell.serving.ray_processes import REPLICA_HOOK, REPLICA_HOOK_VARIABLE
from handsell.storage.config import STORAGE_VARIABLE

CONSOLE = "console"  # the application of the console in deployments/serve/*.yaml
KEY_VARIABLE = "HANDSELL_API_KEY"  # sent by commands that call the service
APPLICATIONS = "/api/serve/applications/"  # of the dashboard: PUT replaces all
DEPLOY_TIMEOUT_S = 180.0  # the first call starts Serve
READY_TIMEOUT_S = 120.0
SWITCH_TIMEOUT_S = 90.0
CONSOLE_TIMEOUT_S = 30.0


def deploy(config: Config, head: RayHead, topology: str) -> str:
    """Write the deployment's Serve file from deployments/serve/<topology>.yaml and deploy it."""
    send_serve_file(write_serve_file(config, topology), head)
    without = config.serving.ingress == ingress.HAPROXY and ingress.choose_ingress(config) == ingress.PLAIN
    return f"{topology} at {service_url(config)}{f', {ingress.WITHOUT}' if without else ''}"


def send_serve_file(path: Path, head: RayHead) -> None:
    """Deploy a Serve file as `serve deploy` does, which takes seconds to import; raises HandsellError with the answer.

    The call returns when Serve has begun to start the applications.
    """
    document = yaml.safe_load(path.read_text())
    try:
        answer = httpx.put(
            f"{head.dashboard}{APPLICATIONS}", json=document, headers=head.headers, timeout=DEPLOY_TIMEOUT_S,
            trust_env=False,
        )  # fmt: skip
    except httpx.HTTPError as error:
        raise HandsellError(f"cannot deploy {path}: {head.dashboard} does not answer ({error!r})") from None
    if answer.status_code != 200:
        raise HandsellError(
            f"cannot deploy {path}: {head.dashboard} answers {answer.status_code}:\n{answer.text[-2000:]}"
        )


def write_serve_file(config: Config, topology: str) -> Path:
    """Write the shipped Serve file with this deployment's config, host and port; return its path."""
    if exposed := find_exposure(config.access, config.serving.host):
        raise ConfigError(exposed)
    source = find_shipped(config.source, f"deployments/serve/{topology}.yaml")
    if source is None:
        raise HandsellError(
            f"expected deployments/serve/{topology}.yaml above {config.source} or in the package, found none: "
            "install handsell again"
        )
    document = yaml.safe_load(source.read_text())
    document["http_options"] = {**document.get("http_options", {}), **_describe_address(config)}
    if not config.console.enabled:
        document["applications"] = [one for one in document["applications"] if one["name"] != CONSOLE]
    for application in document["applications"]:
        _set_deployment(application, config)
    path = Layout(config.state).state / "run" / f"serve-{topology}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)  # the URL of the event store may hold a password
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _describe_address(config: Config) -> dict[str, Any]:
    """Return where Serve listens: at the address of the service, or on loopback behind HAProxy, which listens there."""
    if ingress.choose_ingress(config) == ingress.PLAIN:
        return {"host": config.serving.host, "port": config.serving.port}
    return {"host": "127.0.0.1", "port": 0}  # any port for Serve's own proxy, which gets no requests


def _set_deployment(application: dict[str, Any], config: Config) -> None:
    """Set the config of an application, and variables that restart its replicas where something has changed."""
    application["args"] |= {"config": str(config.source)}
    if application["name"] == CONSOLE:
        templates = sorted(path for path in Path(handsell.console.__path__[0]).rglob("*") if path.suffix != ".pyc")
        code = code_digest(without=("cli", "client", "local"))
        code += digest_files(path for path in templates if path.is_file())
    else:
        code = code_digest(without=("cli", "client", "local", "console"))
        # replicas follow promotions, and wait for the first
        application["args"] |= {"bundle": "live", "awaits_bundle": True}
        if not has_one_writer(config):
            application["deployments"] = [d for d in application["deployments"] if d["name"] != WRITER]
            application["args"]["event_log"] = False
    variables = application.setdefault("runtime_env", {}).setdefault("env_vars", {})
    variables["HANDSELL_CONFIG_DIGEST"] = hashlib.sha256(config.source.read_bytes() + code.encode()).hexdigest()[:12]
    variables[REPLICA_HOOK_VARIABLE] = REPLICA_HOOK
    variables |= {name: os.environ[name] for name in (STORE_VARIABLE, STORAGE_VARIABLE) if name in os.environ}


def console_url(config: Config) -> str:
    return f"{service_url(config)}/console"


def service_url(config: Config) -> str:
    return f"http://{config.serving.host}:{config.serving.port}"


def open_client(url: str, timeout_s: float = 10.0, is_local: bool = False) -> httpx.Client:
    """Return a client of the service at a URL; raises HandsellError for an invalid URL or proxy.

    Calls to this machine (`is_local`, or an address of its loopback) ignore the proxies of the environment. The client
    sends the API key of $HANDSELL_API_KEY, if there is one.
    """
    try:
        base = httpx.URL(url)
        if not (base.scheme in ("http", "https") and base.host):
            raise ValueError("expected http://host:port")
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        trust_env = not (is_local or is_own_host(base.host))
        return httpx.Client(base_url=base, timeout=timeout_s, trust_env=trust_env, headers=headers)
    except (httpx.InvalidURL, ValueError, ImportError) as error:  # ImportError: a SOCKS proxy without its library
        raise HandsellError(f"cannot use the address {url!r} with the proxies of the environment: {error}") from None


def request_slate(client: httpx.Client, user_id: str, count: int) -> dict:
    """Request recommendations from the service at the client's base URL; raises HandsellError if there are none.

    The user id is in the body: proxies and servers may decode an encoded slash in a path.
    """
    url = str(client.base_url).rstrip("/")
    try:
        response = client.post("/v1/recommendations", json={"user_id": user_id, "count": count})
    except httpx.HTTPError as error:
        raise HandsellError(
            f"the service at {url} does not answer ({error!r}): start it with `handsell up CONFIG`"
        ) from None
    if response.status_code != 200:
        raise HandsellError(
            f"expected status 200 from {url}/v1/recommendations for user {user_id!r}, got {response.status_code}: "
            f"{response.text[:300]}" + (f"; set ${KEY_VARIABLE} to an API key" if response.status_code == 401 else "")
        )
    return response.json()


def wait_until_ready(config: Config) -> str:
    """Poll /readyz until the live bundle is served; raises HandsellError after READY_TIMEOUT_S.

    An earlier bundle may still be served at first.
    """
    bundle, url = resolve_bundle(open_bundles(config), "live"), service_url(config)
    deadline, last = time.monotonic() + READY_TIMEOUT_S, "no response"
    while time.monotonic() < deadline:
        try:
            status, last, readiness = _read_readiness(url)
            if status == 200 and _get_bundle(readiness, "release") == bundle:
                return f"ready, serving bundle {bundle}"
        except httpx.HTTPError as error:
            last = repr(error)
        time.sleep(0.5)
    raise HandsellError(
        f"the service is not ready: expected {url}/readyz to report bundle {bundle} within {READY_TIMEOUT_S:.0f} s; "
        f"last response: {last}. `serve status` and the logs of the replicas in "
        f"{find_ray_folder(config.state)}/session_latest/logs/serve say why"
    )


def wait_for_console(config: Config) -> str:
    """Poll the console for CONSOLE_TIMEOUT_S; return what to say about it, for recommendations do not depend on it."""
    if not config.console.enabled:
        return "without a console"
    deadline, url = time.monotonic() + CONSOLE_TIMEOUT_S, console_url(config)
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/healthz", timeout=5.0, trust_env=False).status_code == 200:
                return f"console at {url}"
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    return (
        f"the console at {url} does not answer yet: `serve status` says why; an older Serve file lacks the application "
        "`console`, and console.enabled = false does without it"
    )


def wait_for_switch(config: Config, bundle: str) -> str:
    """Wait until the running service serves a bundle that has just been promoted; return a sentence for people.

    Raises HandsellError if the service refuses the bundle or does not switch within SWITCH_TIMEOUT_S.
    """
    url, started, last = service_url(config), time.monotonic(), None
    while time.monotonic() - started < SWITCH_TIMEOUT_S:
        try:
            _, _, readiness = _read_readiness(url)
        except httpx.HTTPError:
            readiness = {}
        if last is None and not readiness:
            return f"no service is running at {url}; the next one will serve this bundle"
        last = readiness
        if _get_bundle(last, "release") == bundle:
            return f"served by {url} after {time.monotonic() - started:.1f} s"
        if _get_bundle(last, "refused") == bundle:
            raise HandsellError(
                f"{url} cannot serve {bundle} and continues with {_get_bundle(last, 'release')}: "
                f"{last['refused'].get('reason')}"
            )
        time.sleep(0.2)
    raise HandsellError(
        f"{url} did not switch to {bundle} within {SWITCH_TIMEOUT_S:.0f} s; last response: {last}. A service that was "
        f"deployed with a fixed bundle id does not follow promotions: `handsell serve {config.source}` deploys one "
        "that does"
    )


def _read_readiness(url: str) -> tuple[int, str, dict[str, Any]]:
    """Return status, text and JSON object of /readyz; the object is empty if another program answers there."""
    response = httpx.get(f"{url}/readyz", timeout=5.0, trust_env=False)
    try:
        body = response.json()
    except ValueError:
        body = None
    return response.status_code, response.text[:500], body if isinstance(body, dict) else {}


def _get_bundle(readiness: dict[str, Any], key: str) -> str | None:
    part = readiness.get(key)
    return part.get("bundle") if isinstance(part, dict) else None
