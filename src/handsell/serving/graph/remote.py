"""Calls of deployments, and the client of stages that run in them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from handsell.core.logs.request_trace import RequestTrace, get_traces
from handsell.serving.graph.stages import Operation

Traces = tuple[tuple[str, ...], ...]  # of RequestTrace, as plain tuples


async def call(handle: DeploymentHandle, method: str, *args: Any) -> Any:
    """Call a deployment by value, which is twice as fast as by reference for batches of this size.

    A call is retried once if its replica dies: stages and log are idempotent.
    """
    remote = handle.options(
        method_name=method, _by_reference=False, request_serialization="pickle", response_serialization="pickle"
    )
    try:
        return await remote.remote(*args)
    except RayActorError:
        return await remote.remote(*args)


def pack_traces(traces: Iterable[RequestTrace]) -> Traces:
    """Return the requests that a call is made for, as it passes them on."""
    return tuple(tuple(trace) for trace in traces)


@dataclass(frozen=True, slots=True)
class RemoteStages:
    """Stages in separate deployments; every call names the bundle."""

    bundle: str
    handles: Mapping[str, DeploymentHandle]  # by stage

    async def call(self, stage: str, operation: Operation, *args: Any) -> Any:
        return await call(self.handles[stage], "call", pack_traces(get_traces()), self.bundle, operation, *args)

    async def states(self) -> dict[str, str]:
        states = await asyncio.gather(*(call(handle, "state", self.bundle) for handle in self.handles.values()))
        return dict(zip(self.handles, states, strict=True))
