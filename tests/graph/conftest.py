"""One real Serve application per topology, over HTTP, on the suite's shared Ray cluster."""

from __future__ import annotations

import time

import httpx
import pytest
from serving_world import DictStore, World, write_world

PORT = 18_000


class RowsStore(DictStore):
    """Feature rows from a file, so that a replica in another process can open it."""


def open_rows(config):
    """The store of a gateway replica: rows that `deploy` left beside the config."""
    import json

    rows = json.loads((config.source.parent / "rows.json").read_text())
    return RowsStore(config, rows)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    import json

    folder = tmp_path_factory.mktemp("shop")
    made = write_world(folder, PORT)
    (folder / "rows.json").write_text(json.dumps(made.rows, default=str))
    return made


@pytest.fixture(scope="session", params=["graph", "fused"])
def shop(request, ray_cluster, world):
    """An HTTP client of the running application; the parameter is its topology."""
    from ray import serve

    from handsell.serving.app import AppArgs, compose

    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    args = AppArgs(config=str(world.config.source), topology=request.param)
    serve.run(compose(args, open_rows), name="shop", route_prefix="/")
    client = httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=30)
    wait_until_ready(client)
    yield client
    client.close()
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
