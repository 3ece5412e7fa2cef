"""An empty FastAPI application under one uvicorn: what HTTP costs where nothing is recommended.

It answers the requests of load.lua with a fixed object, without parameters that FastAPI would validate.
"""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI

api = FastAPI()


@api.get("/readyz")
async def ready() -> dict[str, str]:
    return {"status": "ready"}


@api.get("/v1/users/{user_id}/recommendations")
async def recommendations() -> dict[str, list[str]]:
    return {"items": [], "degraded": []}


if __name__ == "__main__":
    uvicorn.run(api, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
