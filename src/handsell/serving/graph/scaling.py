"""Autoscaling policy for stages that share one machine: no replica is added while its processors are busy.

Queues grow because there are too few replicas or because the processors are busy. In the second case another replica
takes processor time from those that answer, about 3 s for its start alone, and makes the queues longer. Where replicas
have their own machines (deployments/kuberay), use Serve's own policy.

Usage is that of the whole machine as the operating system reports it, also of other processes. In a container it is
that of the host, so this policy does not see a container's quota.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import psutil
from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy
from ray.serve.config import AutoscalingContext

BUSY_SHARE = 0.9  # share of processor time in use from which no replica is added; chosen, not tuned
MIN_INTERVAL_S = 2.0  # over which the share is averaged


class ProcessorUsage:
    """Processor usage of this machine, cheap to read at any rate."""

    def __init__(self) -> None:
        self._seen = (time.monotonic(), *_processor_seconds())
        self._share = 0.0

    def share(self) -> float:
        """Share of all processor time in use over the last MIN_INTERVAL_S seconds or a little more."""
        at, used, total = self._seen
        now = time.monotonic()
        if now - at >= MIN_INTERVAL_S:
            used_now, total_now = _processor_seconds()
            self._share = min(max((used_now - used) / max(total_now - total, 1e-9), 0.0), 1.0)  # iowait may decrease
            self._seen = (now, used_now, total_now)
        return self._share


def _processor_seconds() -> tuple[float, float]:
    """Processor seconds in use and in total since the machine started."""
    times = psutil.cpu_times()
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)  # both are part of user time
    return total - times.idle - getattr(times, "iowait", 0.0), total


@functools.cache
def machine_usage() -> ProcessorUsage:
    """One object for all deployments: Serve copies a policy for each of them, and finds a cached function by name."""
    return ProcessorUsage()


def add_where_processors_are_free(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Serve's policy by queue length, except that no replica is added while the controller's machine is busy."""
    share = machine_usage().share()  # read at every decision, so that it covers the last seconds
    wanted, state = replica_queue_length_autoscaling_policy(context)
    if wanted > context.target_num_replicas and share >= BUSY_SHARE:
        wanted = context.target_num_replicas
    return wanted, state
