"""Load generator in a separate process: open loop at a constant rate, or closed loops to measure capacity.

Open loop: requests are sent by the clock whether or not earlier ones have been answered, and latency counts from the
scheduled time, so that stalls of the service (or of this client) are part of the figures. Requests are POST, because
HTTP clients retry a GET on their own when a connection breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TIMEOUT_S = 15.0  # far above any deadline, so that late responses count as late and not as failed


@dataclass(frozen=True, slots=True)
class Response:
    """Outcome of one request."""

    sent: float  # scheduled time, s of the monotonic clock
    ms: float
    status: int  # 0: no response
    degraded: tuple[str, ...] = ()
    bundle: str = ""
    retry_after: bool = False
    lowest_score: float = float("nan")  # of the slate
    error: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def shed(self) -> bool:
        """True for 503 with Retry-After, the response to overload."""
        return self.status == 503 and self.retry_after

    @property
    def ended(self) -> float:
        return self.sent + self.ms / 1e3


class Load:
    """Client of a running load generator process, which writes one line per response to a file."""

    def __init__(self, url: str, users: Sequence[str], folder: Path, seed: int = 0):
        self._path = folder / f"load-{time.monotonic_ns()}.jsonl"
        self._read, self._offset = [], 0  # type: list[Response], int
        command = [sys.executable, "-m", "benchmarks.serving.load_generator"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        self._send({"url": url, "users": list(users), "seed": seed, "out": str(self._path)})

    def _send(self, command: dict) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def set_rate(self, per_second: float) -> None:
        """Change the request rate; 0 pauses."""
        self._send({"rate": per_second})

    def run_closed_loops(self, clients: int, seconds: float) -> None:
        self._send({"clients": clients, "seconds": seconds})

    def responses(self, since: float = 0.0) -> list[Response]:
        """Responses to requests that were scheduled at or after `since`, in the order in which they ended."""
        if self._path.exists():
            with self._path.open() as lines:
                lines.seek(self._offset)
                while (line := lines.readline()).endswith("\n"):
                    self._read.append(_parse_response(json.loads(line)))
                    self._offset = lines.tell()
        return [response for response in self._read if response.sent >= since]

    def stop(self) -> list[Response]:
        """Wait for requests in flight, end the process and return all responses."""
        if self._process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self._send({"end": True})
            self._process.wait(TIMEOUT_S + 10)
        return self.responses()


def measure_capacity(url: str, users: Sequence[str], folder: Path, clients: int, seconds: float) -> float:
    """Return the 2xx responses per second of closed loops."""
    load = Load(url, users, folder)
    load.run_closed_loops(clients, seconds)
    responses = [response for response in load.stop() if response.ok]
    if not responses:
        raise SystemExit(f"{url} gave no 2xx response: check that the service is ready")
    begun = min(response.sent for response in responses)
    return len(responses) / (max(response.ended for response in responses) - begun)


def percentile_ms(responses: Sequence[Response], percent: float) -> float | None:
    """Percentile of the latency in ms; None without responses."""
    return float(np.percentile([response.ms for response in responses], percent)) if responses else None


def _parse_response(row: list) -> Response:
    sent, ms, status, degraded, bundle, retry_after, lowest, error = row
    return Response(
        sent, ms, status, tuple(degraded), bundle, retry_after, np.nan if lowest is None else lowest, error
    )  # fmt: skip


# -- the generator process --------------------------------------------------------------------------------------


class LoadGenerator:
    def __init__(self, settings: dict, session):
        self._url, self._session = f"{settings['url']}/v1/recommendations", session
        order = np.random.default_rng(settings["seed"]).permutation(len(settings["users"]))
        self._users, self._next = [settings["users"][i] for i in order], 0
        self._out = Path(settings["out"]).open("w", buffering=1)  # noqa: SIM115 - open as long as the process runs
        self._in_flight: set[asyncio.Task] = set()
        self.rate = 0.0

    async def send(self, due: float) -> None:
        """Send one request and write its outcome as one line."""
        import aiohttp
        import orjson

        user = self._users[self._next % len(self._users)]
        self._next += 1
        status, retry, error = 0, False, ""
        body: dict[str, Any] = {}
        try:
            async with self._session.post(self._url, json={"user_id": user}) as response:
                content = await response.read()
                status, retry = response.status, "Retry-After" in response.headers
            ended = time.monotonic()
            body = orjson.loads(content) if status == 200 else {}
            error = "" if status == 200 else content[:200].decode(errors="replace")
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            ended, error = time.monotonic(), repr(failure)[:200]
        scores = [item["score"] for item in body.get("items", ()) if item["score"] is not None]
        bundle = body.get("release", {}).get("bundle", "")
        ms = (ended - due) * 1e3
        row = [due, ms, status, body.get("degraded", []), bundle, retry, min(scores, default=None), error]
        self._out.write(json.dumps(row) + "\n")

    async def run_open_loop(self) -> None:
        """Send a request every 1 / rate seconds, until cancelled."""
        due = time.monotonic()
        while True:
            if self.rate <= 0:
                await asyncio.sleep(0.01)
                due = time.monotonic()
                continue
            due += 1 / self.rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self.send(due))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)

    async def run_closed_loops(self, clients: int, seconds: float) -> None:
        until = time.monotonic() + seconds

        async def loop() -> None:
            while time.monotonic() < until:
                await self.send(time.monotonic())

        await asyncio.gather(*(loop() for _ in range(clients)))

    async def finish(self) -> None:
        """Wait for the requests in flight."""
        while self._in_flight:
            await asyncio.wait(self._in_flight)


async def run_commands() -> None:
    """Read commands from stdin, one JSON object per line: settings, then rates or closed loops, then the end."""
    import aiohttp

    commands = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    settings = json.loads(await commands.readline())
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        generator = LoadGenerator(settings, session)
        open_loop = asyncio.create_task(generator.run_open_loop())
        while line := await commands.readline():
            command = json.loads(line)
            if "clients" in command:
                await generator.run_closed_loops(command["clients"], command["seconds"])
            generator.rate = command.get("rate", 0.0)
            if "end" in command:
                break
        open_loop.cancel()
        await generator.finish()


if __name__ == "__main__":
    asyncio.run(run_commands())
