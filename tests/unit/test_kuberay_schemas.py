"""Every manifest is what Kubernetes and KubeRay declare, and nothing besides."""

import copy
import os
import shutil
import subprocess

import pytest
import yaml

from kuberay_manifests import FILES, FOLDER, ROOT, load_kustomization, load_manifest
from kubernetes_schemas import Schemas


@pytest.fixture(scope="session")
def schemas() -> Schemas:
    folder = ROOT.parent / "shared" / "kuberay"
    if not folder.is_dir():
        pytest.skip(f"no Kubernetes schemas in {folder}")
    return Schemas(folder)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
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
        ("nightly-role", lambda m: m.update(apiVersion="rbac.authorization.k8s.io/v2"), "is unknown"),
    ],
)  # fmt: skip
def test_a_planted_error_is_refused(schemas, name, plant, said):
    broken = copy.deepcopy(load_manifest(name))
    plant(broken)
    errors = schemas.errors(broken)
    assert errors and any(said in error for error in errors), errors


def test_kustomize_is_given_every_file_of_the_folder():
    document = load_kustomization()
    files = [name for made in document["configMapGenerator"] for key in ("files", "envs") for name in made.get(key, ())]
    listed = [*document["resources"], *files]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in FOLDER.iterdir() if path.is_file())
    assert sorted(document["resources"]) == [path.name for path in FILES]
    assert document["generatorOptions"]["disableNameSuffixHash"] is True  # names in RayService would not follow


def test_what_kustomize_builds_is_valid(schemas):
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl, which has kustomize built in, is not installed")
    built = subprocess.run([kubectl, "kustomize", str(FOLDER)], capture_output=True, text=True, env=os.environ)
    assert built.returncode == 0, built.stderr
    objects = list(yaml.safe_load_all(built.stdout))
    assert len(objects) == len(FILES) + len(load_kustomization()["configMapGenerator"])
    assert [error for each in objects for error in schemas.errors(each)] == []
    assert {each["metadata"].get("namespace") for each in objects if each["kind"] != "Namespace"} == {"handsell"}
