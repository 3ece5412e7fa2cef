"""What Serve itself asks for three hops: a gateway and three stages that do nothing but hand on 1000 ids and scores.

A Serve application, deployed by benchmarks/layouts.py with the settings of the real graph's deployments.
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
    """Hands on so many of what it was given."""

    def __init__(self, kept: int):
        self._kept = kept

    async def hand_on(self, item: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
            item, score = await call(stage, "hand_on", item, score)
        return {"items": item[:10].tolist(), "degraded": []}


def build(arguments: dict[str, str]) -> serve.Application:
    """The arguments are those of the real graph; none is used."""
    names = {"Candidates": K, "Ranking": RANKED, "Reranking": RANKED}
    return Gateway.bind(*(Stage.options(name=name).bind(kept) for name, kept in names.items()))
