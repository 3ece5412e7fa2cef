"""Every manifest is what Kubernetes and KubeRay declare, and nothing besides."""

import copy
import os

import pytest
import yaml

from kuberay_manifests import (
    FILES,
    FOLDER,
    GPUS,
    INCREMENTAL,
    OVERLAYS,
    ROOT,
    STORE_FILES,
    STORES,
    build_objects,
    find_object,
    find_values,
    load_kustomization,
    load_manifest,
)
from kubernetes_schemas import Schemas


@pytest.fixture(scope="session")
def schemas() -> Schemas:
    folder = ROOT.parent / "shared" / "kuberay"
    if not folder.is_dir():
        pytest.skip(f"no Kubernetes schemas in {folder}")
    return Schemas(folder)


@pytest.mark.parametrize("path", [*FILES, *STORE_FILES], ids=lambda p: p.stem)
def test_a_manifest_is_valid(schemas, path):
    assert schemas.errors(yaml.safe_load(path.read_text())) == []


def container(ray_service: dict) -> dict:
    return ray_service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(
    "name, plant, said",
    [
        ("rayservice", lambda m: container(m).update(readynessProbe={}), "'readynessProbe' was unexpected"),
        ("rayservice", lambda m: container(m)["ports"][0].update(containerPort="8000"), "'8000' is not of type"),
        ("rayservice", lambda m: m["spec"].update(serveConfig=""), "'serveConfig' was unexpected"),
        ("rayservice", lambda m: m["spec"]["rayClusterConfig"]["authOptions"].update(mode="tokens"), "is not one of"),
        ("rayservice", lambda m: m["metadata"].update(label={}), "'label' was unexpected"),
        ("rayservice", lambda m: m["spec"].pop("rayClusterConfig"), "'rayClusterConfig' is a required property"),
        ("rayservice", lambda m: container(m)["resources"]["limits"].update(memory="4 GB"), "'4 GB'"),
        ("train-rayjob", lambda m: m["spec"].update(ttlSecondsAfterFinish=1), "'ttlSecondsAfterFinish' was unexpected"),
        ("nightly-cronjob", lambda m: m["spec"].update(timezone="UTC"), "'timezone' was unexpected"),
        ("nightly-cronjob", lambda m: m["spec"].pop("schedule"), "'schedule' is a required property"),
        ("state-claim", lambda m: m["spec"]["resources"]["requests"].update(storage="50 GB"), "'50 GB'"),
        ("service", lambda m: m["spec"]["ports"][0].update(targetPort=[]), "[] is not valid"),
        ("http-networkpolicy", lambda m: m["spec"].update(policyType=["Ingress"]), "'policyType' was unexpected"),
        ("gateway-budget", lambda m: m["spec"].update(minAvailabe=1), "'minAvailabe' was unexpected"),
        ("nightly-role", lambda m: m.update(apiVersion="rbac.authorization.k8s.io/v2"), "is unknown"),
    ],
)  # fmt: skip
def test_a_planted_error_is_refused(schemas, name, plant, said):
    broken = copy.deepcopy(load_manifest(name))
    plant(broken)
    errors = schemas.errors(broken)
    assert errors and any(said in error for error in errors), errors


@pytest.mark.parametrize("folder", [FOLDER, STORES], ids=lambda p: p.name)
def test_kustomize_is_given_every_file_of_the_folder(folder):
    document = load_kustomization(folder)
    generated = document.get("configMapGenerator", ())
    files = [name for made in generated for key in ("files", "envs") for name in made.get(key, ())]
    listed = [*document["resources"], *files, *document.get("configurations", ())]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("folder", [FOLDER, *OVERLAYS], ids=lambda p: p.name)
def test_what_kustomize_builds_is_valid(schemas, folder):
    objects = build_objects(folder)
    kept = {(each["kind"], each["metadata"]["name"]) for path in FILES for each in [yaml.safe_load(path.read_text())]}
    assert kept <= {(each["kind"], each["metadata"]["name"]) for each in objects}
    assert [error for each in objects for error in schemas.errors(each)] == []
    assert {each["metadata"].get("namespace") for each in objects if each["kind"] != "Namespace"} == {"handsell"}


@pytest.mark.parametrize("folder", [FOLDER, *OVERLAYS], ids=lambda p: p.name)
def test_every_pod_names_config_maps_by_their_content(folder):
    """Otherwise a changed config would not change a pod, and nothing would be rolled out."""
    objects = build_objects(folder)
    made = {each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap"}
    assert {name.rpartition("-")[0] for name in made} == {"handsell-config", "handsell-environment"}
    named = [ref["name"] for key in ("configMap", "configMapRef") for ref in find_values(objects, key)]
    assert set(named) == made
    plain = [load_manifest(name) for name in ("rayservice", "train-rayjob", "nightly-cronjob")]
    # YAML anchors: the file says a name once, kustomize says it for every pod
    assert len(named) >= len([ref for key in ("configMap", "configMapRef") for ref in find_values(plain, key)])


def test_the_local_overlay_changes_sizes_alone():
    local, base = (build_objects(folder) for folder in (OVERLAYS[0], FOLDER))
    for kind, name, spec in (
        ("RayService", "handsell", "rayClusterConfig"),
        ("RayJob", "handsell-train", "rayClusterSpec"),
    ):
        ours, theirs = (find_object(objects, kind, name)["spec"] for objects in (local, base))
        assert drop_sizes(ours) == drop_sizes(theirs)
        assert len(ours[spec]["workerGroupSpecs"]) == len(theirs[spec]["workerGroupSpecs"])
    ours, theirs = (
        find_object(objects, "RayService", "handsell")["spec"]["serveConfigV2"] for objects in (local, base)
    )
    ours, theirs = yaml.safe_load(ours), yaml.safe_load(theirs)
    for app in (*ours["applications"], *theirs["applications"]):
        for deployment in app["deployments"]:
            deployment.pop("autoscaling_config", None)
    assert ours == theirs


def test_no_pod_that_serves_mounts_a_shared_volume_in_production():
    objects = build_objects(OVERLAYS[1])
    service = find_object(objects, "RayService", "handsell")
    assert not list(find_values(service, "persistentVolumeClaim"))
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        for container in (
            *group["template"]["spec"].get("initContainers", ()),
            *group["template"]["spec"]["containers"],
        ):
            assert {"secretRef": {"name": "handsell-storage"}} in container["envFrom"], container["name"]
    (claim,) = set(find_values(find_object(objects, "RayJob", "handsell-train"), "claimName"))
    assert find_object(objects, "PersistentVolumeClaim", claim)["spec"]["accessModes"] == ["ReadWriteMany"]


def build_with_component(folder, out) -> list[dict]:
    """Build the base with a component, as an overlay in the folder `out`."""
    base, component = (os.path.relpath(one, out) for one in (FOLDER, folder))
    document = {"kind": "Kustomization", "resources": [base], "components": [component]}
    (out / "kustomization.yaml").write_text(yaml.safe_dump(document))
    return build_objects(out)


def test_an_overlay_may_train_on_gpus(schemas, tmp_path):
    objects = build_with_component(GPUS, tmp_path)
    job = find_object(objects, "RayJob", "handsell-train")
    assert schemas.errors(job) == []
    plain, gpu = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (gpu["groupName"], gpu["minReplicas"], gpu["resources"]["GPU"]) == ("gpu", 0, "1")
    (worker,), (other,) = (group["template"]["spec"]["containers"] for group in (gpu, plain))
    assert worker["resources"]["limits"].pop("nvidia.com/gpu") == 1
    assert worker == other, "it differs in its GPU alone"
    assert gpu["template"]["spec"].pop("tolerations") and gpu["template"] == plain["template"]
    service = find_object(objects, "RayService", "handsell")
    assert "nvidia.com/gpu" not in str(service), "serving has none"


def test_an_overlay_may_upgrade_step_by_step(schemas, tmp_path):
    service = find_object(build_with_component(INCREMENTAL, tmp_path), "RayService", "handsell")
    assert service["spec"]["upgradeStrategy"]["type"] == "NewClusterWithIncrementalUpgrade"
    assert schemas.errors(service) == []


SIZES = ("resources", "minReplicas", "maxReplicas", "replicas", "idleTimeoutSeconds", "serveConfigV2")


def drop_sizes(value):
    """Copy an object without sizes, and without the hashes in names of ConfigMaps."""
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if key not in SIZES}
        return {
            key: inner.rpartition("-")[0] if key == "name" and str(inner).startswith("handsell-config-") else
            drop_sizes(inner)
            for key, inner in kept.items()
        }  # fmt: skip
    return [drop_sizes(inner) for inner in value] if isinstance(value, list) else value
