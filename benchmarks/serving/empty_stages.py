"""Serve application without computation: a gateway and three stages that pass on 1000 ids and scores.

layouts.py deploys it with the settings of the real graph's deployments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from handsell.serving.graph.remote import call

K, RANKED = 1_000, 50
api = FastAPI()


@serve.deployment
class Stage:
    """Return the first `kept` of its arguments."""

    def __init__(self, kept: int):
        self._kept = kept

    async def truncate(self, item: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return item[: self._kept], score[: self._kept]


@serve.deployment
@serve.ingress(api)
class Gateway:
    def __init__(self, *stages: DeploymentHandle):
        self._stages = stages

    @api.get("/readyz")
    async def ready(self) -> dict[str, str]:
        return {"status": "ready"}

    @api.get("/v1/users/{user_id}/recommendations")
    async def recommendations(self, user_id: str) -> dict[str, Any]:
        item, score = np.arange(K, dtype=np.int32), np.ones(K, np.float32)
        for stage in self._stages:
            item, score = await call(stage, "truncate", item, score)
        return {"items": item[:10].tolist(), "degraded": []}


def build(arguments: dict[str, str]) -> serve.Application:
    """Build the application; the arguments, those of the real graph, are not used."""
    names = {"Candidates": K, "Ranking": RANKED, "Reranking": RANKED}
    stages = (Stage.options(name=name).bind(kept) for name, kept in names.items())  # type: ignore[attr-defined]
    return Gateway.bind(*stages)  # type: ignore[attr-defined]
