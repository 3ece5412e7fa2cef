"""deployments/kuberay as Python objects: the base, the stores, and what kustomize builds of the overlays."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
KUBERAY = ROOT / "deployments" / "kuberay"
FOLDER = KUBERAY / "base"
STORES = KUBERAY / "components" / "stores"
INCREMENTAL = KUBERAY / "components" / "incremental-upgrade"
GPUS = KUBERAY / "components" / "gpus"
SETTINGS = ("kustomization.yaml", "names.yaml")  # of kustomize
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.name not in SETTINGS)
STORE_FILES = sorted(path for path in STORES.glob("*.yaml") if path.name not in SETTINGS)
OVERLAYS = [KUBERAY / "overlays" / name for name in ("local", "prod")]


def load_kustomization(folder: Path = FOLDER) -> dict:
    return yaml.safe_load((folder / "kustomization.yaml").read_text())


def load_manifest(name: str, folder: Path = FOLDER) -> dict:
    return yaml.safe_load((folder / f"{name}.yaml").read_text())


@cache
def build_text(folder: Path) -> str:
    """Build a kustomization as YAML; skips the test without kustomize."""
    command = next((found for name in ("kustomize", "kubectl") if (found := shutil.which(name))), None)
    if command is None:
        pytest.skip("neither kustomize nor kubectl, which has it built in, is installed")
    verb = "build" if Path(command).name == "kustomize" else "kustomize"
    built = subprocess.run([command, verb, str(folder)], capture_output=True, text=True, env=os.environ)
    assert built.returncode == 0, built.stderr
    return built.stdout


def build_objects(folder: Path) -> list[dict]:
    """Build the objects of a kustomization; skips the test without kustomize."""
    return list(yaml.safe_load_all(build_text(folder)))


def find_object(objects: list[dict], kind: str, name: str) -> dict:
    """Return the one object of a kind and a name."""
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def find_values(value, key: str) -> Iterator:
    """Yield every value of a key, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from find_values(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from find_values(inner, key)


def find_pods(value: dict) -> list[dict]:
    """Return the pod specs in a manifest."""
    if isinstance(value, list):
        return [pod for inner in value for pod in find_pods(inner)]
    if not isinstance(value, dict):
        return []
    own = [value] if "containers" in value else []
    return own + [pod for inner in value.values() for pod in find_pods(inner)]


def load_environment() -> dict[str, str]:
    """Environment variables of every Ray container."""
    return dict(line.split("=", 1) for line in (FOLDER / "ray.env").read_text().splitlines())


def load_clusters() -> dict[str, dict]:
    """Manifest → its RayCluster spec."""
    return {
        "rayservice": load_manifest("rayservice")["spec"]["rayClusterConfig"],
        "train-rayjob": load_manifest("train-rayjob")["spec"]["rayClusterSpec"],
    }
