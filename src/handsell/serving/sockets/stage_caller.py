"""Calls of a gateway to the replicas of one stage, over the sockets that these have announced."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from handsell.serving.graph.stages import BundleNotHeld
from handsell.serving.sockets.connection import MessageConnection
from handsell.serving.sockets.messages import ANSWER, CALL, CANCEL, NoMessageError, encode
from handsell.serving.sockets.serve_router import Replica, ServeRouter

CONNECT_S = 1.0
FIRST_S = 0.1  # that a call waits for the first connection before it goes through Serve
RETRY_S = 1.0  # after which a replica that did not answer is connected to again


class NoSocket(Exception):
    """A call cannot travel over a socket now; Serve's own way remains."""


FAILURES: dict[str, type[Exception]] = {"BundleNotHeld": BundleNotHeld, "NoMessageError": NoSocket}


class StageFailed(Exception):
    """A stage has answered with an error."""


class StageCaller:
    """Sends each call to the less busy one of two replicas; Serve says which there are, and counts the calls."""

    def __init__(self, router: ServeRouter, key: bytes):
        self._router, self._key = router, key
        self._open: dict[str, ReplicaConnection] = {}  # by address
        self._opening: dict[str, asyncio.Task] = {}
        self._away: dict[str, float] = {}  # loop time until which an address is left alone

    async def call(self, *args: Any) -> Any:
        """The answer of a stage; raises NoSocket, BundleNotHeld or StageFailed."""
        replica, connection = await self._choose()
        with self._router.count(replica):
            return await connection.call(args)

    async def _choose(self) -> tuple[Replica, ReplicaConnection]:
        """Choose a replica with an open connection; raises NoSocket where none opens within FIRST_S."""
        ready = self._list_ready()
        if not ready and self._opening:
            await asyncio.wait(self._opening.values(), timeout=FIRST_S, return_when=asyncio.FIRST_COMPLETED)
            ready = self._list_ready()
        if not ready:
            raise NoSocket
        prompt = [pair for pair in ready if not pair[1].is_late] or ready
        return min(random.sample(prompt, min(2, len(prompt))), key=lambda pair: len(pair[1]))

    def _list_ready(self) -> list[tuple[Replica, ReplicaConnection]]:
        """Return the replicas with an open connection, and begin to connect to the others."""
        replicas = self._router.list_replicas()
        ready = []
        for replica in replicas:
            connection = self._open.get(replica.address)
            if connection is not None and connection.is_open:
                ready.append((replica, connection))
            else:
                self._begin(replica.address)
        if len(self._open) > len(replicas):
            self._close_others({replica.address for replica in replicas})
        return ready

    def _begin(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        if address not in self._opening and loop.time() >= self._away.get(address, 0.0):
            self._opening[address] = loop.create_task(self._connect(address))

    async def _connect(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(lambda: ReplicaConnection(self._key), host, int(port))
                await connection.wait_until_trusted()
            self._open[address] = connection
            self._away.pop(address, None)
        except (OSError, TimeoutError):
            self._away[address] = loop.time() + RETRY_S
        finally:
            del self._opening[address]

    def _close_others(self, addresses: set[str]) -> None:
        """Close connections to replicas that Serve no longer lists and that no call waits for."""
        for address, connection in list(self._open.items()):
            if address not in addresses and not len(connection):
                connection.close()
                del self._open[address]
                self._away.pop(address, None)

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()


class ReplicaConnection(MessageConnection):
    """The gateway's side; its length is the number of calls that wait for an answer.

    It is late from a call that was given up until the replica says anything: one that hangs has no calls, either, and
    would look idle.
    """

    def __init__(self, key: bytes):
        super().__init__(key, listens=False)
        self.is_late = False
        self._trusted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait_until_trusted(self) -> None:
        """Raises ConnectionError if the other side closes first."""
        try:
            await self._trusted
        except BaseException:
            self.close()
            raise

    async def call(self, args: tuple) -> Any:
        """Send a call and wait for its answer; raises NoSocket if it cannot be sent, or the connection ends before."""
        self._last = number = (self._last + 1) % 2**32
        try:
            parts = encode(CALL, number, args)
        except NoMessageError as error:
            raise NoSocket(str(error)) from None
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self.send(parts)
        try:
            return await answer
        except asyncio.CancelledError:
            self.is_late = True
            self.send(encode(CANCEL, number, None))
            raise
        finally:
            self._waiting.pop(number, None)

    def trusted(self) -> None:
        if not self._trusted.done():
            self._trusted.set_result(None)

    def receive(self, kind: int, number: int, value: Any) -> None:
        self.is_late = False
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return
        if kind == ANSWER:
            answer.set_result(value)
        else:
            name, text = value
            answer.set_exception(FAILURES.get(name, StageFailed)(text))

    def lost(self, error: Exception | None) -> None:
        if not self._trusted.done():
            self._trusted.set_exception(ConnectionError("the replica closed the connection"))
            self._trusted.exception()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(NoSocket())
