"""deployments/kuberay/base as Python objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deployments" / "kuberay" / "base"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")


def load_kustomization() -> dict:
    return yaml.safe_load((FOLDER / "kustomization.yaml").read_text())


def load_manifest(name: str) -> dict:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


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
