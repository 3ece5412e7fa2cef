"""Fixtures of the tests on the Kubernetes cluster that $KUBECONFIG names: none is ever started here.

`handsell-load` and, unless $HANDSELL_KEEP is set, `handsell` are the namespaces that they create and remove.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kube_cluster import (
    LOAD_NAMESPACE,
    NAMESPACE,
    Figures,
    list_heads,
    list_ready,
    read_object,
    run_in_pod,
    run_kubectl,
    start_load_pod,
    wait_until,
)

ROOT = Path(__file__).parent.parent.parent
OVERLAY = ROOT / "deployments" / "kuberay" / "overlays" / "local"
CONFIG = "/etc/handsell/handsell.toml"
OWN = "handsell.io/tests"  # label of a namespace that these tests have made
TRAINED_S, READY_S = 900.0, 300.0
GROUPS = ("gateway", "candidates", "ranking", "reranking")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = next((what for what in ("KUBECONFIG",) if not os.environ.get(what)), None)
    if shutil.which("kubectl") is None:
        missing = "kubectl"
    for item in items:
        if "tests/kube/" in item.nodeid:
            item.add_marker(pytest.mark.kube)
            item.add_marker(pytest.mark.timeout(0))  # they wait for pods, each wait with a limit of its own
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"needs a cluster: {missing} is missing"))


@pytest.fixture(scope="session")
def figures() -> Iterator[Figures]:
    """What was measured, printed at the end."""
    found = Figures()
    yield found
    print("\n" + "\n".join(found.lines))


@pytest.fixture(scope="session")
def applied(figures: Figures) -> Iterator[float]:
    """The local overlay, applied by the commands of docs/kubernetes.md; the time at which it was."""
    found = read_object("namespace", NAMESPACE, "default")
    if found and OWN not in found["metadata"]["labels"]:
        pytest.fail(f"the cluster has a namespace {NAMESPACE} that is not of these tests, which would delete it")
    run_kubectl("apply", "-f", str(OVERLAY.parent.parent / "base" / "namespace.yaml"))
    run_kubectl("label", "--overwrite", "namespace", NAMESPACE, f"{OWN}=true")
    redis, events = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
    create_secret("handsell-redis", password=redis, connection=f"redis:6379,password={redis}")
    create_secret(
        "handsell-events", password=events, connection=f"postgresql://handsell:{events}@postgresql:5432/handsell"
    )
    run_kubectl("apply", "-k", str(OVERLAY))
    yield time.monotonic()
    run_kubectl("delete", "namespace", LOAD_NAMESPACE, "--ignore-not-found", "--timeout=60s", check=False)
    if not os.environ.get("HANDSELL_KEEP"):
        run_kubectl("-n", NAMESPACE, "delete", "rayservice,rayjob", "--all", "--timeout=90s", check=False)
        run_kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s", check=False, timeout=130)


def create_secret(name: str, **values: str) -> None:
    """Create a Secret as docs/kubernetes.md does, unless it exists."""
    if not read_object("secret", name):
        given = [f"--from-literal={key}={value}" for key, value in values.items()]
        run_kubectl("-n", NAMESPACE, "create", "secret", "generic", name, *given)


@pytest.fixture(scope="session")
def trained(applied: float, figures: Figures) -> float:
    """The first training has promoted a bundle; the time at which it had."""

    def state() -> dict:
        return read_object("rayjob", "handsell-train").get("status", {})

    ended = ("SUCCEEDED", "FAILED")
    status = wait_until("first training", lambda: state().get("jobStatus") in ended and state(), TRAINED_S, 2)
    assert status["jobStatus"] == "SUCCEEDED", status
    figures.record("apply → first training done", time.monotonic() - applied)
    return time.monotonic()


@pytest.fixture(scope="session")
def ready(trained: float, figures: Figures) -> float:
    """The service runs, with a ready pod in every group."""
    wait_until("service", lambda: all(list_ready(group) for group in GROUPS) and is_running(), READY_S)
    figures.record("training done → every group ready", time.monotonic() - trained)
    return time.monotonic()


def is_running() -> bool:
    status = read_object("rayservice", "handsell").get("status", {}).get("activeServiceStatus", {})
    return status.get("applicationStatuses", {}).get("handsell", {}).get("status") == "RUNNING"


@pytest.fixture(scope="session")
def key(ready: float) -> str:
    """An API key for requests, events and the page Explore, made in the head's pod; load can be sent from then on."""
    scopes = [part for scope in ("recommend", "events", "experiments") for part in ("--scope", scope)]
    command = ("handsell", "keys", "create", CONFIG, "kubernetes tests", *scopes)
    text = run_in_pod(list_heads()[0], *command, container="ray-head").strip().splitlines()[-1]
    start_load_pod(text)
    return text
