"""Where a stage's replica takes calls: an address on its node, for gateways that know the cluster's token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import ray

from handsell.core.ray_token import find_token
from handsell.serving.graph.stages import BundleNotHeld
from handsell.serving.sockets.connection import MessageConnection, derive_key
from handsell.serving.sockets.messages import ANSWER, CALL, CANCEL, FAILURE, NoMessageError, encode
from handsell.serving.sockets.serve_router import ADDRESS

log = logging.getLogger(__name__)

MOST_WAITING = 64  # calls that wait for others; more are refused

Run = Callable[..., Awaitable[Any]]


async def open_listener(run: Run, most: int) -> tuple[StageListener | None, dict[str, str]]:
    """Return a listener on this node's address and what a replica announces; nothing in a cluster without a token."""
    token = find_token()
    if token is None:
        return None, {}
    listener = StageListener(run, derive_key(token), most)
    return listener, {ADDRESS: await listener.open(ray.util.get_node_ip_address())}


class StageListener:
    """Runs `most` calls at a time; further ones wait."""

    def __init__(self, run: Run, key: bytes, most: int):
        self._run, self._key = run, key
        self._free = asyncio.Semaphore(most)
        self.waiting = 0
        self._server: asyncio.Server | None = None

    async def open(self, host: str) -> str:
        """Listen on a free port of `host`; returns HOST:PORT."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _GatewayConnection(self, self._key), host, 0)
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def answer(self, args: tuple) -> Any:
        if self.waiting >= MOST_WAITING:
            raise RuntimeError(f"{self.waiting} calls are waiting")
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        try:
            return await self._run(*args)
        finally:
            self._free.release()


class _GatewayConnection(MessageConnection):
    def __init__(self, listener: StageListener, key: bytes):
        super().__init__(key, listens=True)
        self._listener = listener
        self._calls: dict[int, asyncio.Task] = {}

    def receive(self, kind: int, number: int, value: Any) -> None:
        if kind == CALL:
            self._calls[number] = asyncio.get_running_loop().create_task(self._answer(number, value))
        elif kind == CANCEL and number in self._calls:
            self._calls[number].cancel()

    def lost(self, error: Exception | None) -> None:
        for call in self._calls.values():
            call.cancel()

    async def _answer(self, number: int, args: tuple) -> None:
        try:
            self.send(encode(ANSWER, number, await self._listener.answer(args)))
        except asyncio.CancelledError:
            self.send(encode(FAILURE, number, ("CancelledError", "")))  # says that this replica is not stuck
            raise
        except Exception as error:
            if not isinstance(error, BundleNotHeld | NoMessageError):
                log.warning("a call of this stage failed: %r", error)
            self.send(encode(FAILURE, number, (type(error).__name__, str(error))))
        finally:
            self._calls.pop(number, None)
