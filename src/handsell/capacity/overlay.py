"""A kustomize overlay with the replicas and the memory of a plan."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from handsell.capacity.calibration import STAGES
from handsell.capacity.plan import CapacityPlan, StagePlan
from handsell.core.errors import ConfigError

GROUPS = "/spec/rayClusterConfig/workerGroupSpecs"
NOTE = "# Written by `handsell plan`. kubectl apply -k this folder, or add it to `resources` of an overlay of yours.\n"


def write_overlay(plan: CapacityPlan, base: Path, folder: Path) -> Path:
    """Write kustomization.yaml to a folder; `base` is deployments/kuberay/base. Raises ConfigError without one."""
    manifest = base / "rayservice.yaml"
    if not manifest.is_file():
        raise ConfigError(
            f"--base {base}: expected the folder deployments/kuberay/base with {manifest.name} in it, of a checkout or "
            "of a project that `handsell init` wrote"
        )
    service = yaml.safe_load(manifest.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "kustomization.yaml"
    if path.exists() and not path.read_text(encoding="utf-8").startswith(NOTE):
        raise ConfigError(
            f"--out {folder}: {path.name} is there and was not written by `handsell plan`: name another folder"
        )
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "handsell",
        "resources": [Path(os.path.relpath(base.resolve(), folder.resolve())).as_posix()],
        "patches": [
            {
                "target": {"kind": "RayService", "name": "handsell"},
                "patch": yaml.safe_dump(build_patch(plan, service), sort_keys=False, width=10_000),
            }
        ],
    }
    path.write_text(NOTE + yaml.safe_dump(kustomization, sort_keys=False, width=10_000), encoding="utf-8")
    return path


def build_patch(plan: CapacityPlan, service: dict[str, Any]) -> list[dict[str, Any]]:
    """JSON patch of a RayService: Serve's bounds of each deployment, and the pods of its group."""
    spec = service["spec"]
    serve = spec["serveConfigV2"]
    groups = [group["groupName"] for group in spec["rayClusterConfig"]["workerGroupSpecs"]]
    patch: list[dict[str, Any]] = []
    for stage in STAGES:
        planned = plan.stages[stage]
        serve = _replace_bounds(serve, stage.capitalize(), planned)
        if stage not in groups:
            raise ConfigError(f"the RayService has no worker group {stage}; it has {', '.join(groups)}")
        group = f"{GROUPS}/{groups.index(stage)}"
        memory = f"{planned.memory_gib * 1024:.0f}Mi"
        resources = {"requests": {"cpu": f"{planned.cpus * 1000:.0f}m", "memory": memory}, "limits": {"memory": memory}}
        patch += [
            {"op": "replace", "path": f"{group}/minReplicas", "value": planned.replicas},
            {"op": "replace", "path": f"{group}/replicas", "value": planned.replicas},
            {"op": "replace", "path": f"{group}/maxReplicas", "value": planned.most},
            {"op": "replace", "path": f"{group}/template/spec/containers/0/resources", "value": resources},
        ]
    return [{"op": "replace", "path": "/spec/serveConfigV2", "value": serve}, *patch]


def _replace_bounds(serve: str, deployment: str, planned: StagePlan) -> str:
    pattern = rf"(- name: {deployment}\n(?:(?!- name:).*\n)*?.*min_replicas: )\d+(, max_replicas: )\d+"
    changed, count = re.subn(pattern, rf"\g<1>{planned.replicas}\g<2>{planned.most}", serve)
    if count != 1:
        raise ConfigError(
            f"the RayService has no autoscaling_config of {deployment} with min_replicas and max_replicas"
        )
    return changed
