"""When a stage gets one more replica on a machine that it shares with the others.

Queues grow for two reasons: replicas are few, or cores are full. In the second case one more replica takes cores from
those that answer, some three seconds of one to start alone, and makes the queues longer. Where replicas have machines
of their own (deployments/kuberay), Serve's own policy is the right one.

A machine is what its operating system counts: not the quota of a container, and with all else that runs on it. So while
a training job fills the same cores nothing is added either, and in a container of a large host this policy is blind.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import psutil
from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy
from ray.serve.config import AutoscalingContext

FULL = 0.9  # share of the machine's processor time in use, from which on no replica is added: chosen, not tuned
OVER_S = 2.0  # that it is averaged over, at least


class Cores:
    """How busy this machine is, asked as often as one likes."""

    def __init__(self) -> None:
        self._seen = (time.monotonic(), *_used())
        self._share = 0.0

    def busy(self) -> float:
        """Share of all processor time in use over the last OVER_S seconds, or a little more."""
        at, used, spent = self._seen
        now = time.monotonic()
        if now - at >= OVER_S:
            used_now, spent_now = _used()
            self._share = min(max((used_now - used) / max(spent_now - spent, 1e-9), 0.0), 1.0)  # iowait may step back
            self._seen = (now, used_now, spent_now)
        return self._share


def _used() -> tuple[float, float]:
    """Processor seconds in use, and all of them, since the machine started."""
    times = psutil.cpu_times()
    spent = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)  # which are user time, too
    return spent - times.idle - getattr(times, "iowait", 0.0), spent


@functools.cache
def machine() -> Cores:
    """This one, as all deployments' decisions see it: Serve copies a policy for each, but what is cached it finds by
    name."""
    return Cores()


def where_cores_are_free(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Serve's own policy, by the stage's load, but that nothing is added while the controller's machine is full."""
    busy = machine().busy()  # asked at every decision, so that it is of the last seconds when it counts
    wanted, state = replica_queue_length_autoscaling_policy(context)
    if wanted > context.target_num_replicas and busy >= FULL:
        wanted = context.target_num_replicas
    return wanted, state
