"""A Kubernetes cluster named by $KUBECONFIG, by way of kubectl: objects, pods, waiting, and load from a pod inside."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMESPACE = "handsell"
LOAD_NAMESPACE = "handsell-load"
IMAGE = "handsell:0.1.0"
LOAD_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "load", "namespace": LOAD_NAMESPACE},
    "spec": {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "load",
                "image": IMAGE,
                "command": ["sleep", "86400"],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "load", "mountPath": "/load"}],
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            }
        ],
        "volumes": [{"name": "load", "configMap": {"name": "load"}}],
    },
}


def run_kubectl(*arguments: str, given: str | None = None, check: bool = True, timeout: float = 120.0) -> str:
    """Run kubectl and return what it prints; raises AssertionError with its message."""
    done = subprocess.run(
        ["kubectl", *arguments], input=given, capture_output=True, text=True, check=False, timeout=timeout
    )
    assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}"
    return done.stdout


def read_object(kind: str, name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
    """Read one object; empty if there is none."""
    text = run_kubectl("-n", namespace, "get", kind, name, "-o", "json", "--ignore-not-found")
    return json.loads(text) if text.strip() else {}


def list_pods(selector: str = "", namespace: str = NAMESPACE) -> list[dict[str, Any]]:
    return json.loads(run_kubectl("-n", namespace, "get", "pods", "-l", selector, "-o", "json"))["items"]


def is_ready(pod: dict[str, Any]) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def list_ready(group: str) -> list[str]:
    """Names of the ready pods of a worker group of the service."""
    found = list_pods(f"ray.io/group={group},app.kubernetes.io/component=serving")
    return sorted(pod["metadata"]["name"] for pod in found if is_ready(pod))


def list_heads(component: str = "serving") -> list[str]:
    found = list_pods(f"ray.io/node-type=head,app.kubernetes.io/component={component}")
    return sorted(pod["metadata"]["name"] for pod in found if is_ready(pod))


def wait_until(what: str, condition: Callable[[], Any], timeout_s: float, poll_s: float = 1.0) -> Any:
    """Return the first true value of a condition; raises AssertionError after the timeout, with the last value."""
    begun, value = time.monotonic(), None
    while time.monotonic() < begun + timeout_s:
        if value := condition():
            return value
        time.sleep(poll_s)
    raise AssertionError(f"{what}: not within {timeout_s:.0f} s, last {value!r}\n{describe_pods()}")


def describe_pods() -> str:
    return run_kubectl("-n", NAMESPACE, "get", "pods", "-o", "wide", check=False)


def run_in_pod(pod: str, *command: str, container: str | None = None, timeout: float = 300.0) -> str:
    chosen = ("-c", container) if container else ()
    return run_kubectl("-n", NAMESPACE, "exec", pod, *chosen, "--", *command, timeout=timeout)


def count_stage_calls() -> dict[str, int]:
    """Calls of stages by the gateways that are ready now, by the way that they took: socket or serve."""
    found: Counter[str] = Counter()
    for pod in list_ready("gateway"):
        text = run_in_pod(pod, "wget", "-q", "-O", "-", "http://127.0.0.1:8000/metrics", container="ray-worker")
        for way, count in re.findall(r'^handsell_stage_calls_total{.*way="(\w+)".*} (\S+)', text, re.MULTILINE):
            found[way] += int(float(count))
    return dict(found)


class Figures:
    """What was measured, printed at the end of the session, one line each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def record(self, name: str, value: Any) -> None:
        text = f"{value:.1f} s" if isinstance(value, float) else str(value)
        self.lines.append(f"{name}: {text}")
        print(f"FIGURE {self.lines[-1]}", flush=True)


def start_load_pod(key: str) -> None:
    """Create the pod from which load is sent, in a namespace of its own."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": LOAD_NAMESPACE, "labels": labels}}
    script = (Path(__file__).parent / "kube" / "load.py").read_text()
    about = {"name": "load", "namespace": LOAD_NAMESPACE}
    run_kubectl("apply", "-f", "-", given=json.dumps(space))
    code = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {"load.py": script}}
    run_kubectl("apply", "-f", "-", given=json.dumps(code))
    pod = json.loads(json.dumps(LOAD_POD))
    pod["spec"]["containers"][0]["env"] = [{"name": "API_KEY", "value": key}]
    run_kubectl("-n", LOAD_NAMESPACE, "delete", "pod", "load", "--ignore-not-found", "--force", "--grace-period=0")
    run_kubectl("apply", "-f", "-", given=json.dumps(pod))
    run_kubectl("-n", LOAD_NAMESPACE, "wait", "--for=condition=Ready", "pod/load", "--timeout=120s", timeout=130)


class Load(threading.Thread):
    """Load in the background, from the pod inside; `result()` waits for its end and returns its summary."""

    def __init__(self, seconds: float, connections: int, events: float = 0.0):
        super().__init__(daemon=True)
        url = f"http://handsell.{NAMESPACE}"
        sizes = ("--seconds", f"{seconds:g}", "--connections", str(connections), "--events", f"{events:g}")
        self.command = ("python3", "/load/load.py", "--url", url, *sizes)
        self.seconds, self.text, self.error, self.begun = seconds, "", None, time.monotonic()
        self.start()

    def run(self) -> None:
        try:
            self.text = run_kubectl(
                "-n", LOAD_NAMESPACE, "exec", "load", "--", *self.command, timeout=self.seconds + 120
            )
        except (AssertionError, subprocess.TimeoutExpired) as error:
            self.error = error

    def elapsed(self) -> float:
        return time.monotonic() - self.begun

    def result(self) -> dict[str, Any]:
        self.join()
        assert self.error is None, self.error
        return json.loads(self.text)


def summarize_refusals(result: dict[str, Any]) -> str:
    """When the first 50 refusals were, in seconds since the start of the load, and what the first ones said."""
    refused = result["refused"]
    return f"at {refused[0][0]} to {refused[-1][0]} s {refused[:2]}" if refused else ""


def summarize(result: dict[str, Any]) -> str:
    """One line about a load: requests, failures, latency."""
    rate = result["ok"] / max(len(result["per_second"]), 1)
    return (
        f"{result['sent']} sent, {result['ok']} answered ({rate:.0f}/s), {result['degraded']} degraded, "
        f"{result['refused_count']} refused {summarize_refusals(result)}, {result['errors_count']} broken "
        f"{result['errors'][:3]}, {result['resent']} sent again, p50 {result['p50_ms']} ms, p99 {result['p99_ms']} ms"
    )
