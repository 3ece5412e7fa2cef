"""A new config, a new secret, a drained machine and a night: under load, no request fails."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from pathlib import Path

import pytest
import yaml

from kube_cluster import (
    Load,
    list_heads,
    list_pods,
    list_ready,
    read_object,
    run_in_pod,
    run_kubectl,
    summarize,
    wait_until,
)

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
KUBERAY = ROOT / "deployments" / "kuberay"
UPGRADE_S = 420.0


def active_cluster() -> str:
    status = read_object("rayservice", "handsell").get("status", {})
    return status.get("activeServiceStatus", {}).get("rayClusterName", "")


def wait_for_upgrade(before: str, figures, name: str) -> None:
    begun = time.monotonic()
    wait_until("another cluster", lambda: active_cluster() not in ("", before), UPGRADE_S, 2)
    figures.record(f"{name}: the second cluster has taken over", time.monotonic() - begun)
    wait_until("the former cluster is gone", lambda: not read_object("raycluster", before), UPGRADE_S, 2)
    figures.record(f"{name}: the first one is gone", time.monotonic() - begun)


@pytest.fixture
def changed_overlay(tmp_path) -> Path:
    """A copy of the manifests with a second image tag and a changed config."""
    shutil.copytree(KUBERAY, tmp_path / "kuberay")
    folder = tmp_path / "kuberay" / "overlays" / "local"
    document = yaml.safe_load((folder / "kustomization.yaml").read_text())
    document["images"][0]["newTag"] = os.environ.get("HANDSELL_SECOND_TAG", document["images"][0]["newTag"])
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
    config = (folder / "handsell.toml").read_text()
    (folder / "handsell.toml").write_text(config.replace("[surfaces.push]\ncount = 3", "[surfaces.push]\ncount = 4"))
    return folder


def test_a_second_image_and_a_changed_config_are_rolled_out_without_a_failed_request(key, figures, changed_overlay):
    before = active_cluster()
    load = Load(240.0, 2, events=0.1)
    time.sleep(5)
    run_kubectl("apply", "-k", str(changed_overlay))
    wait_for_upgrade(before, figures, "upgrade")
    result = load.result()
    figures.record("upgrade", summarize(result))
    assert result["errors_count"] == 0 and result["refused_count"] == 0


def test_a_new_password_of_the_event_store_is_taken_without_a_failed_request(key, figures):
    """docs/kubernetes.md: change the password, then the Secret, then restart; open connections go on meanwhile."""
    before, password = active_cluster(), secrets.token_urlsafe(18)
    load = Load(240.0, 2, events=0.1)
    time.sleep(5)
    change = f"ALTER ROLE handsell PASSWORD '{password}'"
    run_in_pod("postgresql-0", "psql", "-U", "handsell", "-c", change)
    values = {"password": password, "connection": f"postgresql://handsell:{password}@postgresql:5432/handsell"}
    run_kubectl("-n", "handsell", "patch", "secret", "handsell-events", "-p", json.dumps({"stringData": values}))
    path = "/spec/rayClusterConfig/headGroupSpec/template/metadata/annotations/handsell.io~1restarted"
    restart = [{"op": "replace", "path": path, "value": str(time.time())}]
    run_kubectl("-n", "handsell", "patch", "rayservice", "handsell", "--type=json", "-p", json.dumps(restart))
    wait_for_upgrade(before, figures, "new password")
    result = load.result()
    figures.record("new password", summarize(result))
    assert result["errors_count"] == 0 and not [status for _, status, _ in result["refused"] if status == 500]


def test_the_nightly_job_trains_and_resumes_after_the_loss_of_a_worker(key, figures):
    begun = time.monotonic()
    run_kubectl("-n", "handsell", "create", "job", "--from=cronjob/handsell-nightly", "night")
    workers = "ray.io/group=training,app.kubernetes.io/component=training"
    wait_until("a driver", lambda: list_heads("training"), 180.0)
    names = lambda: [pod["metadata"]["name"] for pod in list_pods(workers) if is_running(pod)]  # noqa: E731
    worker = wait_until("a worker", names, 180.0)[0]
    time.sleep(25)
    run_kubectl("-n", "handsell", "delete", "pod", worker, "--grace-period=0", "--force")
    figures.record("night: a worker is killed", time.monotonic() - begun)

    def ended() -> list[str]:
        conditions = read_object("job", "night").get("status", {}).get("conditions", ())
        return [one["type"] for one in conditions if one["status"] == "True" and one["type"] in ("Complete", "Failed")]

    assert "Complete" in wait_until("the night", ended, 900.0, 3)
    figures.record("night: trained, with another worker", time.monotonic() - begun)


def is_running(pod: dict) -> bool:
    return pod.get("status", {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")


def test_a_drained_machine_gives_its_pods_to_another_one(key, figures):
    nodes = json.loads(run_kubectl("get", "nodes", "-o", "json"))["items"]
    if len(nodes) < 2:
        pytest.skip("needs two nodes")
    (pod,) = list_pods("ray.io/group=gateway,app.kubernetes.io/component=serving")[:1]
    node = pod["spec"]["nodeName"]
    load = Load(120.0, 4, events=0.1)
    time.sleep(5)
    begun = time.monotonic()
    try:
        run_kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s", timeout=310)
        figures.record("drain", time.monotonic() - begun)
        wait_until("gateway", lambda: list_ready("gateway"), 180.0)
        result = load.result()
        figures.record("drain", summarize(result))
        assert result["errors_count"] == 0
    finally:
        run_kubectl("uncordon", node)


@pytest.mark.parametrize("group", ["candidates", "ranking", "reranking"])
def test_an_evicted_stage_gets_another_pod_without_a_failed_request(key, figures, group):
    """What a drain does to a pod, on clusters with one node, too."""
    (pod,) = wait_until("a pod", lambda: list_ready(group)[:1], 180.0)
    load = Load(75.0, 4, events=0.1)
    time.sleep(5)
    begun = time.monotonic()
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "handsell"}}
    path = f"/api/v1/namespaces/handsell/pods/{pod}/eviction"
    run_kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))
    wait_until("another pod", lambda: [name for name in list_ready(group) if name != pod], 180.0)
    figures.record(f"{group} evicted: another one is ready", time.monotonic() - begun)
    result = load.result()
    figures.record(f"{group} evicted", summarize(result))
    assert result["errors_count"] == 0 and result["refused_count"] == 0
