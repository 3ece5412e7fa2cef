"""An example shop that shows recommendations of a running service: `make demo`.

The browser talks to this server alone, which forwards requests with its own key and says who the visitor is. With a
widget's key in $HANDSELL_WIDGET_KEY (ID:SIGNING_SECRET), the page talks to the service itself, with tokens that this
server signs; the service's `access.cors_origins` then lists the shop's address.
"""

from __future__ import annotations

import argparse
import json
import mimetypes
import os
import sys
import time
import webbrowser
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import jwt
import numpy as np
from jinja2 import Environment, FileSystemLoader

from handsell.catalog.vocabulary import Vocabulary
from handsell.client import Client, ClientError, ProblemError
from handsell.client.errors import UnknownObject
from handsell.config import Config, load_config
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout

HERE = Path(__file__).resolve().parent
ASSETS = {path.name: path for path in (*(HERE / "assets").iterdir(), *(HERE.parent / "dist").glob("*.js"))}
WIDGET_VARIABLE = "HANDSELL_WIDGET_KEY"
TOKEN_S = 600
SUGGESTED = 20  # visitors
VISITOR = "visitor"  # the cookie; a real shop has a session, and its visitor cannot choose who they are
LARGEST_BODY = 100_000


class ExampleShop:
    """What the pages need: the service, the types of events, visitors to choose from."""

    def __init__(self, config: Config, url: str):
        self.client, self.url = Client(url), url
        self.name = config.name
        self.view, self.click, self.actions = choose_event_types(config)
        self.visitors = list_visitors(config)
        self.widget_key = os.environ.get(WIDGET_VARIABLE, "").partition(":")
        self._pages = Environment(loader=FileSystemLoader(HERE / "pages"), autoescape=True)

    @property
    def is_direct(self) -> bool:
        """Whether the page talks to the service itself."""
        return bool(self.widget_key[2])

    def render(self, page: str, visitor: str, **values: Any) -> bytes:
        return self._pages.get_template(f"{page}.j2").render(shop=self, visitor=visitor, **values).encode()

    def sign_token(self, visitor: str) -> bytes:
        """Sign a widget's token for a visitor."""
        key_id, _, secret = self.widget_key
        claims = {"sub": visitor, "exp": time.time() + TOKEN_S}
        return jwt.encode(claims, secret, "HS256", {"kid": key_id}).encode()

    def forward(self, path: str, fields: dict[str, Any], visitor: str) -> Any:
        """Call the service for a visitor, whoever the browser says it is; raises ClientError, KeyError."""
        if path == "/v1/events":
            known: Any = [{**event, "user_id": visitor} for event in list_objects(fields.get("events"))]
            return self.client.send_events(known)
        call: Any = {"/v1/recommendations": self.client.recommend, "/v1/similar": self.client.similar}[path]
        return call(**{**fields, "user_id": visitor})


def list_objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def choose_event_types(config: Config) -> tuple[str, str, list[str]]:
    """Return the types for views and clicks (`none` where the configuration has none), and those of buttons."""
    types = config.events.types
    view = next((name for name, kind in types.items() if kind.weight == 0 and not kind.seen), "none")
    liked = sorted((name for name, kind in types.items() if kind.weight > 0), key=lambda name: types[name].weight)
    click = "click" if "click" in types else next(iter(liked), "none")
    return view, click, [name for name in types if name not in (view, click) and types[name].weight]


def list_visitors(config: Config) -> list[str]:
    """Return some ids of users; none where the data is on another machine."""
    folder = Layout(config.state).catalog / "users"
    if not folder.exists():
        return []
    users = Vocabulary.load(folder)
    return list(users.ids(np.arange(min(SUGGESTED, len(users)))))


class ShopRequest(BaseHTTPRequestHandler):
    """Answers one request of a browser."""

    shop: ExampleShop  # set by `serve`

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/":
            self._answer(200, self.shop.render("home", self._visitor), "text/html; charset=utf-8")
        elif path.startswith("/item/"):
            self._show_item(unquote(path.removeprefix("/item/")))
        elif path == "/token" and self.shop.is_direct:
            self._answer(200, self.shop.sign_token(self._visitor), "text/plain")
        elif path == "/v1/similar":
            self._forward(path, dict(parse_qsl(urlsplit(self.path).query)))
        elif path.startswith("/assets/") and (asset := ASSETS.get(path.removeprefix("/assets/"))):
            self._answer(200, asset.read_bytes(), mimetypes.guess_type(asset.name)[0] or "text/plain")
        else:
            self._refuse(404, "not_found", "no such page")

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if length > LARGEST_BODY:
            self._refuse(413, "body_too_large", f"expected at most {LARGEST_BODY} bytes")
            return
        body = self.rfile.read(length)
        if self.path == "/visitor":
            fields = dict(parse_qsl(body.decode(errors="replace")))
            cookie = f"{VISITOR}={quote(fields.get('visitor', ''), safe='')}; Path=/; HttpOnly; SameSite=Lax"
            self._answer(303, b"", "text/plain", {"Location": "/", "Set-Cookie": cookie})
        elif self.path in ("/v1/recommendations", "/v1/events"):
            self._forward(self.path, read_object(body))
        else:
            self._refuse(404, "not_found", "no such page")

    @property
    def _visitor(self) -> str:
        try:
            found = SimpleCookie(self.headers.get("cookie", "")).get(VISITOR)
        except CookieError:
            found = None
        return unquote(found.value) if found and found.value else next(iter(self.shop.visitors), "someone-new")

    def _show_item(self, item_id: str) -> None:
        try:
            item = self.shop.client.get_item(item_id)
        except UnknownObject:
            self._refuse(404, "not_found", f"the shop has no item {item_id}")
        except ClientError as error:
            self._refuse(503, "unavailable", str(error))
        else:
            page = self.shop.render("item", self._visitor, item=item)
            self._answer(200, page, "text/html; charset=utf-8")

    def _forward(self, path: str, fields: dict[str, Any]) -> None:
        try:
            answer = self.shop.forward(path, fields, self._visitor)
        except ProblemError as error:
            self._refuse(error.status, error.code, error.detail)
        except ClientError as error:
            self._refuse(503, "unavailable", str(error))
        else:
            status = 202 if path == "/v1/events" else 200
            self._answer(status, json.dumps(answer).encode(), "application/json")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        problem = {"title": "", "status": status, "code": code, "detail": detail}
        self._answer(status, json.dumps(problem).encode(), "application/problem+json")

    def _answer(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        policy = "default-src 'self'; img-src * data:" + (
            f"; connect-src 'self' {self.shop.url}" if self.shop.is_direct else ""
        )
        self.send_response(status)
        for name, value in {
            "Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": policy,
            "Cache-Control": "no-store", **(headers or {}),
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep the terminal quiet."""


def read_object(body: bytes) -> dict[str, Any]:
    """Return the object of a body; an empty one for anything else, which the service refuses."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class ShopServer(ThreadingHTTPServer):
    """Keeps the terminal quiet where a visitor has left the page before its answer."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def open_server(shop: ExampleShop, port: int) -> ShopServer:
    """Listen on loopback; raises HandsellError where the port is taken."""
    handler = type("ShopHandler", (ShopRequest,), {"shop": shop})
    try:
        return ShopServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise HandsellError(f"--port: expected a free port, got {port}: {error.strerror}: choose another") from None


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="an example shop with recommendations of a running service")
    parser.add_argument("config", help="the deployment's TOML file")
    parser.add_argument("--url", help="address of the service, if it is not that of the configuration")
    parser.add_argument("--port", type=int, default=8090)
    given = parser.parse_args(arguments)
    config = load_config(Path(given.config))
    shop = ExampleShop(config, given.url or f"http://{config.serving.host}:{config.serving.port}")
    shop.client.popular(count=1)  # says early that the service does not run, or wants a key
    server = open_server(shop, given.port)
    address = f"http://127.0.0.1:{server.server_port}"
    print(f"The shop is at {address}, with recommendations of {shop.url}. Ctrl-C ends it.", flush=True)
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
        shop.client.close()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except HandsellError as error:
        sys.exit(f"error: {error}")
