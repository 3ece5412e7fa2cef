"""Access over HTTP: who is refused with which status, and what a caller with the right key gets."""

import asyncio
import contextlib
import time
from dataclasses import replace
from types import SimpleNamespace

import jwt
import pytest

from handsell.access.api_key import create_key, rotate_key
from handsell.access.config import AccessConfig
from handsell.core.units import DAY_US
from handsell.events.store.interface import EventStoreError
from handsell.events.store.opening import open_reader
from handsell.serving.http.access import access_control
from handsell.serving.http.access.gate import OPEN_PATHS, AccessGate
from handsell.serving.http.access.route_scopes import ROUTE_SCOPES
from handsell.serving.http.routing import StrictRoute
from serving_service import start_service
from serving_world import write_world

ASK = {"user_id": "u1", "count": 3}
EVENT = {"type": "like", "item_id": "i1", "user_id": "u1"}


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


NAMES = ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example.")
OWN_NAMES = ("localhost:8000", "shop.localhost:8000", "127.0.0.1:8000", "[::1]:8000", "gateway")


@pytest.mark.parametrize(("host", "status"), [*((name, 403) for name in NAMES), *((name, 200) for name in OWN_NAMES)])
async def test_without_keys_a_page_under_a_name_of_its_own_is_refused(world, host, status):
    """A browser takes a page for the service's own where its name was made to resolve to 127.0.0.1."""
    async with start_service(world) as (client, _):
        answer = await client.get("/v1/popular?count=1", headers={"Host": host})
        assert answer.status_code == status
        if status == 403:
            assert answer.json()["code"] == "host_not_allowed" and "localhost" in answer.json()["detail"]


async def test_with_keys_any_name_reaches_the_service(world):
    async with guarded(world) as shop:
        _, text = shop.create("recommend")
        assert (await shop.ask(text, Host="recs.example")).status_code == 200


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


def sign(key, secret, user_id="u1", life_s=60):
    return jwt.encode({"sub": user_id, "exp": time.time() + life_s}, secret, "HS256", {"kid": key.key_id})


async def test_a_widget_asks_for_its_signed_user_alone(world):
    async with guarded(world) as shop:
        key, secret = shop.create("recommend", "events", kind="widget")
        token = sign(key, secret)
        for method, path, json, code in (
            ("POST", "/v1/recommendations", ASK, None),
            ("GET", "/v1/users/u1/recommendations", None, None),
            ("GET", "/v1/recommendations?user_id=u1", None, None),
            ("GET", "/v1/popular", None, None),
            ("GET", "/v1/items/i1/similar", None, None),
            ("POST", "/v1/events", {"events": [EVENT, EVENT]}, None),
            ("POST", "/v1/recommendations", {"user_id": "u2"}, "other_user"),
            ("POST", "/v1/recommendations", {"user_id": "u1", "anonymous_id": "v1"}, "other_user"),
            ("POST", "/v1/recommendations", {}, "other_user"),
            ("GET", "/v1/users/u2/recommendations", None, "other_user"),
            ("GET", "/v1/recommendations", None, "other_user"),
            ("GET", "/v1/recommendations?user_id=u1&user_id=u2", None, "other_user"),
            ("GET", "/v1/recommendations?user_id=u1&anonymous_id=v1", None, "other_user"),
            ("POST", "/v1/events", {"events": [EVENT, EVENT | {"user_id": "u2"}]}, "other_user"),
            ("POST", "/v1/events", {"events": [{"type": "like", "item_id": "i1"}]}, "other_user"),
            ("POST", "/v1/events", {"events": ["u1"]}, "other_user"),
            ("GET", "/v1/explain?user_id=u1&item_id=i1", None, "not_for_widgets"),
            ("POST", "/v1/rank", {"user_id": "u1", "item_ids": ["i1"]}, "not_for_widgets"),
            ("GET", "/v1/blocks?user_id=u1", None, "not_for_widgets"),
            ("PUT", "/v1/items/i1", {}, "missing_scope"),
            ("GET", "/v1/users/u1", None, "missing_scope"),
        ):  # fmt: skip
            answer = await shop.ask(token, method, path, json)
            expected = (403, code) if code else (answer.status_code, None)
            found = answer.json().get("code")
            assert (answer.status_code, found) == expected and answer.status_code in (200, 202, 403), (
                path,
                json,
                found,
            )


async def test_a_widgets_token_is_refused_after_its_end(world):
    async with guarded(world, widget_token_s=600) as shop:
        key, secret = shop.create("recommend", kind="widget")
        assert (await shop.ask(sign(key, secret))).status_code == 200
        for life_s in (-1, 900):  # replayed after its end; longer than is allowed
            refused = await shop.ask(sign(key, secret, life_s=life_s))
            assert (refused.status_code, refused.json()["code"]) == (401, "key_invalid")


async def test_a_revoked_key_is_refused_without_a_restart(world):
    async with guarded(world) as shop:
        key, text = shop.create("recommend")
        rotated, newest = rotate_key(key, now_us(), 3_600)
        shop.put(rotated)
        assert [(await shop.ask(one)).status_code for one in (text, newest)] == [200, 200]
        shop.put(replace(rotated, revoked_us=now_us()))
        assert [(await shop.ask(one)).status_code for one in (text, newest)] == [401, 401]


async def test_a_change_is_followed_in_the_background(world, monkeypatch):
    monkeypatch.setattr(access_control, "FOLLOW_S", 0.02)
    async with guarded(world) as shop:
        following = asyncio.create_task(shop.service.access.run())
        key, text = create_key("shop", "server", ("recommend",), now_us(), quota_per_day=2)
        await asyncio.to_thread(shop.log.put_key(key).result)
        async with asyncio.timeout(20):
            while (await shop.ask(text)).status_code != 200:
                await asyncio.sleep(0.02)
            assert (await shop.ask(text)).status_code == 200
            refused = await shop.ask(text)
            assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
            assert 0 < int(refused.headers["retry-after"]) <= 86_400
            with contextlib.closing(open_reader(world.config)) as reader:
                while reader.read_usage(now_us() // DAY_US) != {key.key_id: 2}:  # for the other gateways
                    await asyncio.sleep(0.02)
        following.cancel()


async def test_known_keys_hold_while_the_store_is_away(world, caplog):
    async with guarded(world) as shop:
        _, text = shop.create("recommend", quota_per_day=5)

        def fail(*_):
            raise EventStoreError("the store is away")

        shop.service.access._reader = SimpleNamespace(read_keys=fail, read_usage=fail, close=lambda: None)
        for _ in range(3):
            shop.service.access.follow_keys()
            await shop.service.access.exchange_counts()
        assert (await shop.ask(text)).status_code == 200
        assert caplog.text.count("API keys cannot be read") == 1


async def test_without_any_reading_a_caller_is_told_to_come_back():
    access = access_control.AccessControl(AccessConfig(keys="required"), lambda: SimpleNamespace(), None)
    scope = {"type": "http", "method": "GET", "path": "/v1/popular"}
    refusal = AccessGate(access).find_refusal(scope, {b"x-api-key": b"hs_aaaaaaaaaa_b"})
    assert refusal.status_code == 503 and refusal.headers["retry-after"] == "1"


async def test_too_many_requests_are_told_when_to_come_back(world):
    async with guarded(world) as shop:
        _, text = shop.create("recommend", rate_per_s=0.5)
        assert (await shop.ask(text)).status_code == 200
        refused = await shop.ask(text)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert refused.headers["retry-after"] == "2"
        _, other = shop.create("recommend")
        assert (await shop.ask(other)).status_code == 200


async def test_an_oversized_body_and_too_many_rows_are_refused(world):
    async with guarded(world) as shop:
        _, text = shop.create("admin")
        big = {"events": [EVENT | {"item_id": "i" * 400}] * 60}
        assert (await shop.ask(text, path="/v1/events", json=big)).json()["code"] == "body_too_large"
        many = await shop.ask(text, path="/v1/events", json={"events": [EVENT] * 51})
        assert (many.status_code, many.json()["code"]) == (413, "too_many_events")
        assert (await shop.ask(path="/v1/events", json=big)).status_code == 401  # before the body is read


ORIGIN = "https://shop.example"


async def test_pages_of_other_origins_are_refused(world):
    async with start_service(world) as (client, _):  # also without keys
        for origin, status in (
            ("https://evil.example", 403),
            ("null", 403),
            ("http://shop", 200),
            ("http://shop:81", 403),
        ):
            answer = await client.post("/v1/recommendations", json=ASK, headers={"Origin": origin})
            assert answer.status_code == status, origin
            assert "access-control-allow-origin" not in answer.headers
        assert answer.json()["code"] == "origin_not_allowed" and "access.cors_origins" in answer.json()["detail"]
        question = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        assert (await client.options("/v1/recommendations", headers=question)).status_code == 403


async def test_a_page_of_an_allowed_origin_may_call(world):
    async with guarded(world, cors_origins=(ORIGIN,)) as shop:
        question = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        preflight = await shop.client.options("/v1/recommendations", headers=question)  # browsers send it without a key
        assert preflight.status_code == 204 and preflight.headers["access-control-allow-origin"] == ORIGIN
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        _, text = shop.create("recommend")
        allowed = await shop.ask(text, Origin=ORIGIN)
        assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == ORIGIN
        assert allowed.headers["vary"] == "origin"
        refused = await shop.ask(Origin=ORIGIN)  # the page may read why
        assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == ORIGIN


async def test_every_answer_has_security_headers(world):
    async with guarded(world) as shop:
        _, text = shop.create("recommend")
        for answer in (await shop.ask(text), await shop.ask(), await shop.ask(method="GET", path="/healthz")):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")


async def test_every_route_has_a_scope_or_is_open(world):
    async with start_service(world) as (client, _):
        document = (await client.get("/openapi.json")).json()
    assert set(document["paths"]) == {*ROUTE_SCOPES, *OPEN_PATHS}
    with pytest.raises(KeyError):
        StrictRoute("/v1/new", lambda: None)


async def test_the_front_door_leads_to_the_console_without_a_key(world):
    async with guarded(world) as shop:
        answer = await shop.ask(method="GET", path="/")
        assert (answer.status_code, answer.headers["location"]) == (307, "console")


async def test_the_gateways_log_and_metrics_have_no_secret(world, caplog):
    caplog.set_level("DEBUG")
    async with guarded(world) as shop:
        key, text = shop.create("recommend")
        widget, signing = shop.create("recommend", kind="widget")
        secrets = (text, text.split("_", 2)[2], key.secret, signing, sign(widget, signing))
        for one in (text, text + "x", secrets[-1], secrets[-1] + "x"):
            await shop.ask(one)
        metrics = shop.service.metrics.render().decode()
        assert not [secret for secret in secrets if secret in caplog.text + metrics]
