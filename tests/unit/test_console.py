"""The console as such: sessions, sign-in, forged requests, errors."""

import io
import logging
import time
from dataclasses import replace

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from console_app import open_console
from handsell.console.gate import list_named_ids
from handsell.console.page import ConsolePage
from handsell.console.rendering import check_place, redirect
from handsell.console.sessions import SessionStore
from handsell.console.visit import get_visit
from handsell.core.errors import DataError
from handsell.core.logs.log_lines import JsonLines
from serving_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture(autouse=True)
def read_keys_at_once(monkeypatch):
    monkeypatch.setattr("handsell.console.visitors.FOLLOW_S", 0.0)


async def show(request):
    answer = await get_visit(request).ask("GET", "/v1/popular", params=dict(request.query_params))
    return PlainTextResponse(answer["items"][0]["item_id"])


async def change(request):
    visit = get_visit(request)
    visit.require_edit("catalog")
    async with visit.audited("painted the sign", "item i1"):
        if visit.field("color") == "none":
            raise DataError("color: expected a color, got none: name one")
    return redirect(request, "/explore", "The sign is painted.")


async def fail(request):
    raise RuntimeError(f"secret detail of {request.query_params.get('user', 'nobody')}")


PROBE = ConsolePage(
    "probe", "Probe", (Route("/", show), Route("/change", change, methods=["POST"]), Route("/fail", fail))
)
INNER = ConsolePage("inner", "Inner", (Route("/", show),), scope="admin")
PAGES = (PROBE, INNER)


async def test_without_keys_nobody_signs_in(world):
    async with open_console(world) as visitor:
        response = await visitor.get("")
        assert response.status_code == 200 and response.url.path == "/console/explore"
        assert "Sign out" not in response.text and 'aria-current="page"' in response.text


async def test_a_key_opens_a_session_and_signing_out_ends_it(world):
    async with open_console(world, keys="required", pages=PAGES) as visitor:
        response = await visitor.get("/probe?count=2")
        assert (await visitor.http.get("/console/session")).status_code == 401
        assert response.url.path == "/console/signin" and "next=%2Fprobe%3Fcount%3D2" in str(response.url)
        wrong = await visitor.http.post("/console/signin", data={"key": "hs_abcdefghij_x"})
        assert wrong.status_code == 401 and "expected an api key" in wrong.text.lower()
        key = visitor.create_key("recommend")
        fields = {"key": key, "next": "/probe?count=2"}
        opened = await visitor.http.post("/console/signin", data=fields, follow_redirects=True)
        assert opened.status_code == 200 and opened.text.startswith("i")
        cookie = opened.history[0].headers["set-cookie"]
        assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/console")) and key not in cookie
        assert "Secure" not in cookie
        assert (await visitor.http.get("/console/session")).status_code == 204
        await visitor.get("/signin")
        missing = await visitor.get("/nowhere")
        assert missing.status_code == 404 and "analyst" in missing.text
        await visitor.post("/signout")
        assert (await visitor.get("/probe")).url.path == "/console/signin"
        behind_tls = await visitor.http.post("/console/signin", data=fields, headers={"X-Forwarded-Proto": "https"})
        assert "Secure" in behind_tls.headers["set-cookie"]


async def test_a_revoked_key_ends_its_sessions(world):
    async with open_console(world, keys="required", pages=PAGES) as visitor:
        await visitor.sign_in("recommend")
        assert (await visitor.get("/probe")).status_code == 200
        (key,) = visitor.service.access.keys._keys.values()
        visitor.log.put_key(replace(key, revoked_us=time.time_ns() // 1_000)).result()
        assert (await visitor.get("/probe")).url.path == "/console/signin"


async def test_a_page_needs_its_scope(world):
    async with open_console(world, keys="required", pages=PAGES) as visitor:
        await visitor.sign_in("recommend")
        refused = await visitor.get("/inner")
        assert refused.status_code == 403 and "needs a key with the scope admin" in refused.text
        assert ">Probe<" in refused.text and ">Inner<" not in refused.text


async def test_a_change_needs_the_switch_and_the_scope_and_is_recorded(world):
    async with open_console(world, keys="required", pages=PAGES) as visitor:
        await visitor.sign_in("recommend", "catalog")
        await visitor.get("/nowhere")
        refused = await visitor.post("/probe/change")
        assert refused.status_code == 403 and "Switch on “Edit”" in refused.text and not visitor.audit
        await visitor.post("/edit", edit="on", next="/nowhere")
        failed = await visitor.post("/probe/change", color="none")
        assert failed.status_code == 422 and "expected a color, got none" in failed.text
        done = await visitor.post("/probe/change", partial=True, color="red")
        assert done.headers["hx-redirect"] == "/console/explore"
        assert [(one.action, one.object, one.status) for one in visitor.audit] == [
            ("console: painted the sign", "item i1", "failed"), ("console: painted the sign", "item i1", "done")
        ]  # fmt: skip
        assert visitor.audit[0].caller == "analyst" and visitor.audit[0].key_id
        assert "The sign is painted." in (await visitor.get("/nowhere")).text
        assert "The sign is painted." not in (await visitor.get("/nowhere")).text
    async with open_console(world, keys="required", pages=PAGES) as visitor:
        await visitor.sign_in("recommend")
        await visitor.get("/nowhere")
        await visitor.post("/edit", edit="on", next="/nowhere")
        refused = await visitor.post("/probe/change", color="red")
        assert refused.status_code == 403 and "needs a key with the scope catalog; yours has recommend" in refused.text


@pytest.mark.parametrize(
    ("csrf", "headers", "status"),
    [
        ("right", {}, 303), ("wrong", {}, 403), ("", {}, 403), ("right", {"Origin": "http://shop"}, 303),
        ("right", {"Origin": "https://evil.example"}, 403), ("right", {"Origin": "null"}, 403),
        ("", {"X-CSRF-Token": "right"}, 303), ("right", {"Content-Type": "application/json"}, 415),
    ],
)  # fmt: skip
async def test_a_form_of_another_page_changes_nothing(world, csrf, headers, status):
    async with open_console(world, pages=PAGES) as visitor:
        await visitor.get("/nowhere")
        headers = {name: visitor.csrf if value == "right" else value for name, value in headers.items()}
        fields = {"csrf": visitor.csrf if csrf == "right" else csrf, "edit": "on", "next": "/nowhere"}
        response = await visitor.http.post("/console/edit", data=fields, headers=headers)
        assert response.status_code == status
        assert ("Edit: on" in (await visitor.get("/nowhere")).text) == (status == 303)


async def test_a_form_without_a_session_changes_nothing(world):
    for keys in ("off", "required"):
        async with open_console(world, keys=keys, pages=PAGES) as visitor:
            response = await visitor.http.post("/console/probe/change", data={"csrf": ""})
            assert response.status_code == 303 and response.headers["location"].startswith("/console/signin")


async def test_errors_are_sentences(world):
    async with open_console(world, pages=PAGES) as visitor:
        bad = await visitor.get("/probe?count=x")
        assert bad.status_code == 422 and "count: Input should be a valid integer" in bad.text and "<html" in bad.text
        part = await visitor.get("/probe?count=x", headers={"HX-Request": "true"})
        assert part.status_code == 422 and part.text.lstrip().startswith('<div class="message bad"')
        failed = await visitor.get("/probe/fail")
        assert failed.status_code == 500 and "its log has the cause" in failed.text
        assert "content-security-policy" in failed.headers
        assert "secret detail" not in failed.text and "Traceback" not in failed.text
        large = await visitor.http.post("/console/probe/change", data={"csrf": "x" * 1_100_000})
        assert large.status_code == 413


async def test_ids_are_hashed_in_the_log(world):
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines("Console", lambda id_: "h:1234"))
    logger = logging.getLogger("handsell.console.app")
    logger.addHandler(handler)
    try:
        async with open_console(world, pages=PAGES) as visitor:
            await visitor.get("/probe/fail?user=ann@example.com&event=like:i9")
    finally:
        logger.removeHandler(handler)
    assert "h:1234" in written.getvalue() and "ann@example.com" not in written.getvalue()
    assert list_named_ids([("event", "like:a:b"), ("surface", "home")], {"item_id": ["i1"]}) == ["i1", "a:b"]


async def test_pages_load_nothing_from_elsewhere_and_are_not_kept(world):
    async with open_console(world, pages=PAGES) as visitor:
        page = await visitor.get("/nowhere")
        policy = page.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert page.headers["cache-control"] == "no-store" and "style=" not in page.text and "<script>" not in page.text
        css = await visitor.http.get("/console/static/console.css")
        assert css.status_code == 200 and "max-age" in css.headers["cache-control"] and "http" not in css.text
        assert "set-cookie" not in css.headers


async def test_the_theme_is_kept_in_a_cookie(world):
    async with open_console(world, pages=PAGES) as visitor:
        assert 'data-theme="auto"' in (await visitor.get("/nowhere")).text
        await visitor.post("/theme", theme="dark", next="/nowhere")
        assert 'data-theme="dark"' in (await visitor.get("/nowhere")).text


@pytest.mark.parametrize("place", ["https://evil.example", "//evil.example", "/\\evil.example", "", "/a\nb", "evil"])
def test_a_redirect_stays_in_the_console(place):
    assert check_place(place) == "/" and check_place("/probe?count=2") == "/probe?count=2"


def test_a_session_ends():
    store = SessionStore(life_s=0.0)
    assert store.find(store.begin("").id) is None
    lasting = SessionStore(life_s=60)
    session = lasting.begin("")
    assert lasting.find(session.id) is session and lasting.find("other") is None


async def test_without_keys_a_page_under_a_name_of_its_own_is_refused(world):
    async with open_console(world) as visitor:
        refused = await visitor.http.get("/console/", headers={"Host": "evil.example"})
        assert refused.status_code == 403 and "access.keys" in refused.text
        assert "set-cookie" not in refused.headers
