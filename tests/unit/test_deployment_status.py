"""Replicas of the service as Ray Serve tells them."""

import ray
from ray import serve
from ray.serve.schema import (
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    DeploymentStatusTrigger,
    ReplicaState,
    ServeStatus,
)

from handsell.serving.telemetry.deployment_status import DeploymentReplicas, read_deployments


def test_outside_of_a_cluster_nothing_is_known():
    assert read_deployments() is None


def test_replicas_are_counted_by_state(monkeypatch):
    trigger = DeploymentStatusTrigger.UNSPECIFIED
    states = {ReplicaState.RUNNING: 2, ReplicaState.STARTING: 1}
    deployments = {
        "Gateway": DeploymentStatusOverview(DeploymentStatus.UPDATING, trigger, states, "one more"),
        "Ranking": DeploymentStatusOverview(DeploymentStatus.UNHEALTHY, trigger, {}, ""),
    }
    application = ApplicationStatusOverview("RUNNING", "", 0.0, deployments)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(serve, "status", lambda: ServeStatus(proxies={}, applications={"handsell": application}))
    assert read_deployments() == [
        DeploymentReplicas("handsell", "Gateway", "UPDATING", 2, {"STARTING": 1}, "one more"),
        DeploymentReplicas("handsell", "Ranking", "UNHEALTHY", 0, {}, ""),
    ]
