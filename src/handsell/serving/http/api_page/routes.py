"""Routes of the page `/docs` and of its files, which need no key: they say nothing about the deployment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

HERE = Path(__file__).parent
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>handsell: HTTP API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="stylesheet" href="docs/page.css">
</head>
<body>
<form hidden>
<label for="key">API key</label>
<input id="key" name="key" type="password" autocomplete="off" required>
<button>Show the API</button>
</form>
<p id="message" role="status"></p>
<main id="api"></main>
<noscript>This page needs JavaScript; <a href="openapi.json">openapi.json</a> has the same content.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
FILES = {  # by name: folder and media type
    "swagger-ui.css": ("vendor", "text/css; charset=utf-8"),
    "swagger-ui-bundle.js": ("vendor", "text/javascript; charset=utf-8"),
    "page.css": ("", "text/css; charset=utf-8"),
    "start.js": ("", "text/javascript; charset=utf-8"),
}
PATHS = ("/docs", *(f"/docs/{name}" for name in FILES))
HEADERS = {
    # styles: Swagger UI sets some on elements; images: its icons are data
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


def build_page_routes() -> APIRouter:
    """Return the routes, which are not part of the OpenAPI document."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    async def show_page() -> Response:
        return Response(PAGE, media_type="text/html", headers=HEADERS)

    for name in FILES:
        routes.add_api_route(f"/docs/{name}", _make_answer(name), methods=["GET"])
    return routes


def _make_answer(name: str) -> Callable[[], Awaitable[Response]]:
    async def send_file() -> Response:
        return Response(_read(name), media_type=FILES[name][1])

    return send_file


@cache
def _read(name: str) -> bytes:
    return (HERE / FILES[name][0] / name).read_bytes()
