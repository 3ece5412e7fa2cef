"""The page `/docs` of a gateway: its files are there, it needs no key and no other host."""

import re

import pytest

from handsell.serving.http.api_page.routes import PATHS
from serving_service import start_service
from serving_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


async def test_the_page_and_every_file_that_it_names_are_there(world):
    async with start_service(world) as (client, _):
        page = await client.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        named = re.findall(r'(?:href|src)="([^"]+)"', page.text)
        assert {f"/{name}" for name in named} == {*PATHS[1:], "/openapi.json"}
        for name in named:
            assert (await client.get(f"/{name}")).status_code == 200, name
        assert "/docs" not in (await client.get("/openapi.json")).json()["paths"]


async def test_the_page_may_load_nothing_from_another_host(world):
    async with start_service(world) as (client, _):
        page = await client.get("/docs")
    (policy,) = page.headers.get_list("content-security-policy")
    sources = re.findall(r"[\w-]+-src ([^;]+)", policy)
    assert {word for source in sources for word in source.split()} == {"'none'", "'self'", "'unsafe-inline'", "data:"}
    assert "script-src 'self';" in policy
