"""Across all manifests: one image, no root, names that exist, the order of `make up`."""

import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest
import ray

from handsell.jobs.pipeline import STEPS
from handsell.local import up
from kuberay_manifests import (
    FILES,
    ROOT,
    STORE_FILES,
    STORES,
    find_pods,
    find_values,
    load_clusters,
    load_environment,
    load_kustomization,
    load_manifest,
)

NAMES = [path.stem for path in FILES]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def read(path: Path) -> dict:
    return load_manifest(path.stem, path.parent)


def containers(pod: dict) -> list[dict]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def test_one_image_of_this_version_everywhere():
    images = {image for name in NAMES for image in find_values(load_manifest(name), "image")}
    assert images == {f"handsell:{PROJECT['version']}"}


@pytest.mark.parametrize("path", [p for p in (*FILES, *STORE_FILES) if find_pods(read(p))], ids=lambda p: p.stem)
def test_no_container_runs_as_root_or_writes_to_its_image(path):
    for pod in find_pods(read(path)):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] > 0 and context["runAsGroup"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"].items() >= RESTRICTED.items(), container["name"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
    for options in find_values(read(path), "autoscalerOptions"):
        assert options["securityContext"] == RESTRICTED  # the operator adds this container


def test_every_pod_carries_the_label_of_the_network_policy():
    label = load_manifest("cluster-networkpolicy")["spec"]["podSelector"]["matchLabels"]
    for cluster in load_clusters().values():
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            assert group["template"]["metadata"]["labels"].items() >= label.items()
    submitter = load_manifest("train-rayjob")["spec"]["submitterPodTemplate"]
    assert submitter["metadata"]["labels"].items() >= label.items()


def test_what_is_named_exists():
    made = {made["name"] for made in load_kustomization()["configMapGenerator"]}
    claims = {
        load_manifest(name)["metadata"]["name"]
        for name in NAMES
        if load_manifest(name)["kind"] == "PersistentVolumeClaim"
    }
    everything = [load_manifest(name) for name in NAMES]
    assert {ref["name"] for key in ("configMap", "configMapRef") for ref in find_values(everything, key)} == made
    assert set(find_values(everything, "claimName")) == claims
    assert set(find_values(everything, "serviceAccountName")) == {
        load_manifest("nightly-serviceaccount")["metadata"]["name"]
    }
    secrets = {(ref["name"], ref["key"]) for ref in find_values(everything, "secretKeyRef")}
    stores = [read(path) for path in STORE_FILES]
    secrets |= {(ref["name"], ref["key"]) for ref in find_values(stores, "secretKeyRef")}
    said = (ROOT / "docs" / "kubernetes.md").read_text()
    assert secrets and all(name in said and f"--from-literal={key}=" in said for name, key in secrets)


def test_a_container_may_write_to_mounted_folders_alone():
    """Ray, HAProxy and the libraries write below /tmp and the home folder."""
    assert load_environment()["HOME"] == "/tmp"
    for name, cluster in load_clusters().items():
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            for container in containers(pod):
                mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
                assert {"name": mounts["/tmp"], "emptyDir": {}} in pod["volumes"], (name, container["name"])
        assert {"name": "tmp", "mountPath": "/tmp"} in cluster["autoscalerOptions"]["volumeMounts"]


def test_everything_is_closed_unless_a_policy_opens_it():
    closed = load_manifest("default-networkpolicy")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    opened = load_manifest("cluster-networkpolicy")["spec"]
    ports = {port["port"] for rule in opened["egress"] for port in rule.get("ports", ())}
    assert ports == {53, 5432, 6379, 443, 6443}
    for path in STORE_FILES:
        for pod in find_values(read(path), "template"):
            label = load_manifest("stores-networkpolicy", STORES)["spec"]["podSelector"]["matchLabels"]
            assert pod["metadata"]["labels"].items() >= label.items()


def test_a_budget_keeps_a_pod_of_every_group():
    groups = {group["groupName"] for group in load_clusters()["rayservice"]["workerGroupSpecs"]}
    budgets = {name.removesuffix("-budget"): load_manifest(name)["spec"] for name in NAMES if name.endswith("-budget")}
    assert set(budgets) == groups
    for name, budget in budgets.items():
        assert budget["selector"]["matchLabels"]["ray.io/group"] == name
        assert type(budget["minAvailable"]) is int  # Kubernetes cannot count the pods that a RayCluster should have
        (group,) = [g for g in load_clusters()["rayservice"]["workerGroupSpecs"] if g["groupName"] == name]
        assert group["minReplicas"] > budget["minAvailable"]


def test_the_ray_version_is_the_images():
    pinned = next(d for d in PROJECT["dependencies"] if d.startswith("ray["))
    versions = {cluster["rayVersion"] for cluster in load_clusters().values()}
    assert versions == {ray.__version__} == {pinned.partition("==")[2]}


def test_serves_variables_are_ones_that_serve_reads():
    import ray.serve._private.constants as constants

    known = Path(constants.__file__).read_text()
    ours = [name for name in load_environment() if name.startswith("RAY_SERVE_")]
    assert ours and all(f'"{name}"' in known for name in ours)


def test_training_runs_the_steps_of_make_up_in_their_order():
    first, then = (
        re.findall(r'steps\.run\(\s*"([\w ]+)"', inspect.getsource(function))
        for function in (up._prepare_features, up.start_everything)
    )
    assert list(STEPS) == ["erase", "compact", *(step.removeprefix("feast ") for step in first)]
    assert then == ["doctor", "ray", "train", "serve", "ready", "show"]
    job = load_manifest("train-rayjob")["spec"]
    assert job["entrypoint"] == "python -m handsell train /etc/handsell/handsell.toml"
    assert job["shutdownAfterJobFinishes"] is True
    (resource,) = json.loads(job["entrypointResources"])
    offered = job["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["resources"]
    assert json.loads(json.loads(offered)) == {resource: 1}  # the driver runs on the head, which no spot machine is


def test_the_nightly_job_outlives_its_training():
    night = load_manifest("nightly-cronjob")["spec"]
    job = load_manifest("train-rayjob")["spec"]
    assert night["concurrencyPolicy"] == "Forbid"
    assert (
        night["jobTemplate"]["spec"]["activeDeadlineSeconds"]
        > job["activeDeadlineSeconds"] + job["ttlSecondsAfterFinished"]
    )
