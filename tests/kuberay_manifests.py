"""deployments/kuberay/base as Python objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deployments" / "kuberay" / "base"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")


def kustomization() -> dict:
    return yaml.safe_load((FOLDER / "kustomization.yaml").read_text())


def manifest(name: str) -> dict:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def found(value, key: str) -> Iterator:
    """Every value of that key, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from found(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from found(inner, key)


def pods(value: dict) -> list[dict]:
    """The pod specs in a manifest."""
    if isinstance(value, list):
        return [pod for inner in value for pod in pods(inner)]
    if not isinstance(value, dict):
        return []
    own = [value] if "containers" in value else []
    return own + [pod for inner in value.values() for pod in pods(inner)]


def environment() -> dict[str, str]:
    """Variables of every Ray container."""
    return dict(line.split("=", 1) for line in (FOLDER / "ray.env").read_text().splitlines())


def clusters() -> dict[str, dict]:
    """Manifest → its RayCluster spec."""
    return {
        "rayservice": manifest("rayservice")["spec"]["rayClusterConfig"],
        "train-rayjob": manifest("train-rayjob")["spec"]["rayClusterSpec"],
    }
