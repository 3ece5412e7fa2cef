"""Processor time that keys add to a request, in this process.

    python -m benchmarks access
    python -m benchmarks access --keys 10000 --rounds 40

Two applications with one route each answer the same bytes, behind the gateway's own gate and checks: one requires
keys, the other does not. Requests take turns in rounds; of each kind the median round counts.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
from fastapi import APIRouter, FastAPI
from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.report import measure_cpu_speed, write_report
from handsell.access.api_key import ApiKey, KeyKind, create_key
from handsell.access.config import AccessConfig
from handsell.serving.http.access.access_control import AccessControl
from handsell.serving.http.access.gate import AccessGate
from handsell.serving.http.problems import install_handlers
from handsell.serving.http.routing import StrictRoute

PATH = "/v1/users/u1/recommendations"
HOST = (b"host", b"shop")


class MemoryReader:
    """A store of keys in memory."""

    def __init__(self, keys: list[ApiKey]):
        self._keys = [replace(key, offset=n) for n, key in enumerate(keys, start=1)]

    def read_keys(self, after_offset: int = 0) -> list[ApiKey]:
        return [key for key in self._keys if key.offset > after_offset]


class GateMiddleware:
    """The gate alone before an application."""

    def __init__(self, app: ASGIApp, gate: AccessGate):
        self._app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._gate.find_refusal(scope, dict(scope["headers"]))
        await (refusal or self._app)(scope, receive, send)


def build_app(access: AccessConfig, keys: list[ApiKey]) -> FastAPI:
    """Build an application with one route behind the gateway's checks."""
    app, routes = FastAPI(), APIRouter(route_class=StrictRoute)

    @routes.get("/v1/users/{user_id:id}/recommendations")
    async def answer(user_id: str) -> Response:
        return Response(b"{}", media_type="application/json")

    app.include_router(routes)
    install_handlers(app)
    reader: Any = MemoryReader(keys)
    sink: Any = SimpleNamespace()
    app.add_middleware(GateMiddleware, gate=AccessGate(AccessControl(access, lambda: reader, sink)))
    return app


async def send(app: FastAPI, headers: list[tuple[bytes, bytes]], requests: int) -> tuple[int, float]:
    """Send requests one after another; return the last status and the µs of processor time of each."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def note(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    begun = time.process_time()
    for _ in range(requests):
        scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": PATH, "root_path": "",
            "raw_path": PATH.encode(), "query_string": b"", "headers": [HOST, *headers], "server": ("shop", 80),
        }  # fmt: skip
        await app(scope, receive, note)
    return status, (time.process_time() - begun) / requests * 1e6


def make_key(kind: KeyKind) -> tuple[ApiKey, str]:
    return create_key("shop", kind, ("recommend",), time.time_ns() // 1_000, rate_per_s=1e6, quota_per_day=10**9)


def measure(keys: int, rounds: int, requests: int) -> list[dict[str, Any]]:
    """Return status and µs of each kind of request."""
    (server, text), (widget, secret) = make_key("server"), make_key("widget")
    token = jwt.encode({"sub": "u1", "exp": time.time() + 3_000}, secret, "HS256", {"kid": widget.key_id})
    known = [make_key("server")[0] for _ in range(keys)]
    off = build_app(AccessConfig(), [])
    required = build_app(AccessConfig(keys="required"), [*known, server, widget])
    kinds = {
        "no keys required": (off, []),
        "key": (required, [(b"authorization", f"Bearer {text}".encode())]),
        "widget's token": (required, [(b"authorization", f"Bearer {token}".encode())]),
        "refused: no key": (required, []),
        "refused: wrong secret": (required, [(b"authorization", f"Bearer {text}x".encode())]),
    }
    took: dict[str, list[float]] = {name: [] for name in kinds}
    statuses = {}
    for _ in range(rounds):
        for name, (app, headers) in kinds.items():
            statuses[name], us = asyncio.run(send(app, headers, requests))
            took[name].append(us)
    base = statistics.median(took["no keys required"])
    return [
        {"request": name, "status": statuses[name], "us": statistics.median(each),
         "more_us": statistics.median(each) - base}
        for name, each in took.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks access", description=__doc__.split("\n")[0])
    parser.add_argument("--keys", type=int, default=1_000, help="other keys that the gateway knows")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=500, help="requests of each kind in a round")
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    rows = measure(options.keys, options.rounds, options.requests)
    about = {"keys": options.keys, "rounds": options.rounds, "loops_per_us": round(measure_cpu_speed(), 1)}
    write_report("access", rows, about, options.json)


if __name__ == "__main__":
    main()
