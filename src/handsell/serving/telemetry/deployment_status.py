"""Which replicas of the service run, as Ray Serve says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeploymentReplicas:
    """Replicas of one deployment."""

    application: str
    deployment: str
    status: str  # HEALTHY, UPDATING, UNHEALTHY …
    running: int
    others: dict[str, int]  # by state: STARTING, STOPPING …
    message: str


def read_deployments() -> list[DeploymentReplicas] | None:
    """Return all deployments of the cluster of this process; None where the process is on no cluster. Takes a call."""
    import ray  # on a cluster it is loaded already, and elsewhere nothing needs it
    from ray import serve

    if not ray.is_initialized():
        return None
    found = []
    for application, about in serve.status().applications.items():
        for name, one in about.deployments.items():
            states = {str(getattr(state, "value", state)): count for state, count in one.replica_states.items()}
            running = states.pop("RUNNING", 0)
            status = str(getattr(one.status, "value", one.status))
            found.append(DeploymentReplicas(application, name, status, running, states, one.message))
    return found
