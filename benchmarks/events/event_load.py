"""Load generator of events in a process of its own: closed loops over plain sockets, which take little processor time.

Reads its settings as JSON from stdin and prints its result as JSON. Every event has an id of its own, so that each is
new; with `acknowledged`, the ids of acknowledged events are appended to that file.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import orjson

TIMEOUT_S = 30.0
RETRY_S = 0.05  # after a failure, so that a closed port does not make the loop spin


@dataclass(frozen=True, slots=True)
class EventLoad:
    """What one run sends."""

    url: str
    users: Sequence[str]
    items: Sequence[str]
    type: str  # of the events
    connections: int
    batch: int  # events in one POST
    seconds: float
    prefix: str  # of event ids; a repeated one makes duplicates
    resend: bool = False  # send what was not acknowledged again, as a client that loses nothing does
    acknowledged: str = ""  # file for the ids of acknowledged events


@dataclass(slots=True)
class Outcome:
    """What the service answered; latencies in ms are those of 202 answers."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    failures: Counter[str] = field(default_factory=Counter)  # by status or error
    latencies: list[float] = field(default_factory=list)

    def summarize(self, seconds: float) -> dict:
        p50, p99 = np.percentile(self.latencies, (50, 99)).tolist() if self.latencies else (None, None)
        return {
            "posts": len(self.latencies), "accepted": self.accepted, "duplicates": self.duplicates,
            "rejected": self.rejected, "failures": dict(self.failures), "events per s": self.accepted / seconds,
            "p50 ms": p50, "p99 ms": p99,
        }  # fmt: skip


def run_event_load(load: EventLoad) -> dict:
    """Run the load in another interpreter and return its summary."""
    process = start_event_load(load)
    try:
        return json.loads(process.communicate()[0])
    finally:
        process.kill()  # it would go on where this process is ended
        process.wait()


def start_event_load(load: EventLoad) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.events.event_load"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(load)))
    process.stdin.close()
    process.stdin = None
    return process


# -- the generator process --------------------------------------------------------------------------------------


class Connection:
    """One HTTP connection, opened again after a failure."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a JSON body; raises OSError, EOFError or TimeoutError without a whole answer."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if self._reader is None or self._writer is None:
                    self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
                head = (
                    f"POST {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\ncontent-type: application/json\r\n"
                    f"content-length: {len(body)}\r\n\r\n"
                )
                self._writer.write(head.encode() + body)
                return await self._read_answer(self._reader)
        except BaseException:
            self.close()
            raise

    async def _read_answer(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split(b" ", 2)[1])
        if b"transfer-encoding: chunked" in head:
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length or 0))
        if b"connection: close" in head:
            self.close()
        return status, body

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def build_body(load: EventLoad, ids: Sequence[str], rng: np.random.Generator) -> bytes:
    """Return the body of one POST: events of random users with random items, now."""
    now = time.time_ns() // 1_000_000
    users, items = rng.integers(len(load.users), size=len(ids)), rng.integers(len(load.items), size=len(ids))
    events = [
        {
            "event_id": id, "type": load.type, "user_id": load.users[user], "item_id": load.items[item],
            "timestamp": now, "surface": "home", "position": 3,
        }
        for id, user, item in zip(ids, users.tolist(), items.tolist(), strict=True)
    ]  # fmt: skip
    return orjson.dumps({"events": events})


async def run(load: EventLoad) -> dict:
    outcome, begun = Outcome(), time.monotonic()
    until = begun + load.seconds
    record = Path(load.acknowledged).open("a") if load.acknowledged else None  # noqa: SIM115 - closed below

    async def post_in_turn(number: int) -> None:
        connection, rng, place = Connection(load.url), np.random.default_rng(number), 0
        ids: list[str] = []
        while time.monotonic() < until:
            if not ids:
                ids = [f"{load.prefix}-{number}-{place + n}" for n in range(load.batch)]
                place += load.batch
                body = build_body(load, ids, rng)
            sent = time.monotonic()
            try:
                status, answer = await connection.post("/v1/events", body)
            except (OSError, EOFError, TimeoutError) as error:
                status, answer = 0, repr(error)[:60].encode()
            if status == 202:
                outcome.latencies.append((time.monotonic() - sent) * 1e3)
                counts = orjson.loads(answer)
                outcome.accepted += counts["accepted"]
                outcome.duplicates += counts["duplicates"]
                outcome.rejected += len(counts["rejected"])
                if record:
                    record.write("\n".join(ids) + "\n")
                    record.flush()
                ids = []
                continue
            outcome.failures[str(status) if status else answer.decode()] += 1
            await asyncio.sleep(RETRY_S)
            if not load.resend:
                ids = []
        connection.close()

    await asyncio.gather(*(post_in_turn(number) for number in range(load.connections)))
    if record:
        record.close()
    return outcome.summarize(time.monotonic() - begun)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(EventLoad(**json.load(sys.stdin))))))
