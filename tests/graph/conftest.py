"""Fixtures: one Serve application per topology, over HTTP, on the shared Ray cluster."""

from __future__ import annotations

import contextlib
import time

import httpx
import pytest

import serving_world
from api_document import ResponseCheck
from serving_world import World, open_rows, write_world

PORT = 18_000


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    return write_world(tmp_path_factory.mktemp("shop"), PORT)


@pytest.fixture(scope="session", params=["graph", pytest.param("fused", marks=pytest.mark.slow)])
def shop(request, ray_cluster, world):
    """HTTP client of the running application; the parameter is its topology."""
    from ray import cloudpickle, serve
    from ray.serve.exceptions import RayServeException

    from handsell.serving.http.app import AppArgs, compose

    cloudpickle.register_pickle_by_value(serving_world)  # replicas cannot import from tests/
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    args = AppArgs(config=str(world.config.source), topology=request.param)
    serve.run(compose(args, open_rows), name="shop", route_prefix="/")
    client = httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=30)
    wait_until_ready(client)
    client.event_hooks = {"response": [ResponseCheck(client.get("/openapi.json").json())]}
    yield client
    client.close()
    with contextlib.suppress(RayServeException):  # a module that ran later may have shut Serve down
        serve.delete("shop")
    serve.shutdown()


def wait_until_ready(client: httpx.Client, limit_s: float = 60) -> None:
    until, last = time.monotonic() + limit_s, "no answer"
    while time.monotonic() < until:
        try:
            answer = client.get("/readyz")
            if answer.status_code == 200:
                return
            last = answer.text
        except httpx.HTTPError as error:
            last = repr(error)
        time.sleep(0.2)
    raise TimeoutError(f"not ready: {last}")


@pytest.fixture(scope="session")
def port() -> int:
    """Port of the cluster's HTTP proxy."""
    return PORT
