"""Access over HTTP: who is refused with which status, and what a caller with the right key gets."""

import contextlib
import time

import jwt
import pytest

from handsell.access.api_key import create_key
from handsell.access.config import AccessConfig
from serving_service import start_service
from serving_world import write_world

ASK = {"user_id": "u1", "count": 3}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


def now_us():
    return time.time_ns() // 1_000


class GuardedShop:
    """A service that requires keys."""

    def __init__(self, client, service):
        self.client, self.service = client, service
        self.log = service._events.log

    def put(self, key):
        self.log.put_key(key).result()
        self.service.access.follow_keys()

    def create(self, *scopes, kind="server", **more):
        key, text = create_key("shop", kind, scopes, now_us(), **more)
        self.put(key)
        return key, text

    async def ask(self, text=None, method="POST", path="/v1/recommendations", json=ASK, **headers):
        given = {"Authorization": f"Bearer {text}"} if text else {}
        body = {"json": json} if method != "GET" else {}
        return await self.client.request(method, path, headers=given | headers, **body)


@contextlib.asynccontextmanager
async def guarded(world, **settings):
    config = world.config.model_copy(update={"access": AccessConfig(**{"keys": "required", **settings})})
    async with start_service(world, config=config) as (client, service):
        yield GuardedShop(client, service)


async def test_a_request_needs_a_key(world):
    async with guarded(world) as shop:
        refused = await shop.ask()
        assert (refused.status_code, refused.json()["code"]) == (401, "key_missing")
        assert refused.headers["www-authenticate"] == 'Bearer realm="handsell"'
        _, text = shop.create("recommend")
        assert (await shop.ask(text)).status_code == 200
        assert (await shop.ask(**{"X-API-Key": text})).status_code == 200
        assert (await shop.ask(text[:-1])).json()["code"] == "key_invalid"
        assert (await shop.ask("hs_aaaaaaaaaa_secret")).status_code == 401
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await shop.ask(method="GET", path=path)).status_code == 200
        assert (await shop.ask(method="GET", path="/openapi.json")).status_code == 401


async def test_a_key_may_do_what_its_scopes_say(world):
    async with guarded(world) as shop:
        _, text = shop.create("recommend")
        refused = await shop.ask(text, path="/v1/events", json={"events": []})
        assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")
        assert "scope events" in refused.json()["detail"]
        _, catalog = shop.create("catalog")
        assert (await shop.ask(catalog, "GET", "/v1/items/i1")).status_code == 200
        erase = "/v1/users/u1?erase=true"
        assert "scope admin" in (await shop.ask(catalog, "DELETE", erase, None)).json()["detail"]
        _, admin = shop.create("admin")
        assert (await shop.ask(admin)).status_code == 200


async def test_a_widget_asks_for_its_signed_user_alone(world):
    async with guarded(world) as shop:
        key, secret = shop.create("recommend", kind="widget")
        token = jwt.encode({"sub": "u1", "exp": time.time() + 60}, secret, "HS256", {"kid": key.key_id})
        assert (await shop.ask(token)).status_code == 200
        assert (await shop.ask(token, json={"user_id": "u2"})).json()["code"] == "other_user"
