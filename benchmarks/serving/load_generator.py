"""Load at a constant rate, from a process of its own: `Load` starts one, changes its rate and reads what came.

Open loop: requests leave by the clock, however the earlier ones fare, and latency counts from the moment at which a
request was due, so that a stall of the service (or of this client) is not left out of the figures. POST, because
clients repeat a GET by themselves when a connection breaks. With `callers` it is a closed loop: the capacity.
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

import numpy as np

TIMEOUT_S = 15.0  # far above any deadline: what is answered late counts as late, not as lost


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request. `sent` is when it was due (monotonic clock, s); `status` 0 is none at all."""

    sent: float
    ms: float
    status: int
    degraded: tuple[str, ...] = ()
    bundle: str = ""
    retry_after: bool = False
    least: float = float("nan")  # lowest score of the slate
    error: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def shed(self) -> bool:
        """Told to come back, as overload is told."""
        return self.status == 503 and self.retry_after

    @property
    def ended(self) -> float:
        return self.sent + self.ms / 1e3


class Load:
    """A running generator. Answers are read from the file that it writes as they come."""

    def __init__(self, url: str, users: Sequence[str], folder: Path, seed: int = 0):
        self._path = folder / f"load-{time.monotonic_ns()}.jsonl"
        self._read, self._place = [], 0  # type: list[Answer], int
        command = [sys.executable, "-m", "benchmarks.serving.load_generator"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        self._tell({"url": url, "users": list(users), "seed": seed, "out": str(self._path)})

    def _tell(self, order: dict) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def rate(self, per_second: float) -> None:
        """From now on; 0 pauses."""
        self._tell({"rate": per_second})

    def answers(self, since: float = 0.0) -> list[Answer]:
        """Of requests due since then, in the order in which they ended."""
        if self._path.exists():
            with self._path.open() as lines:
                lines.seek(self._place)
                while (line := lines.readline()).endswith("\n"):
                    self._read.append(_answer(json.loads(line)))
                    self._place = lines.tell()
        return [answer for answer in self._read if answer.sent >= since]

    def stop(self) -> list[Answer]:
        """All answers, those under way included."""
        if self._process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self._tell({"end": True})
            self._process.wait(TIMEOUT_S + 10)
        return self.answers()


def capacity(url: str, users: Sequence[str], folder: Path, callers: int, seconds: float) -> float:
    """Answers per second (2xx) that closed loops of this client get from the service."""
    load = Load(url, users, folder)
    load._tell({"callers": callers, "seconds": seconds})
    answers = [answer for answer in load.stop() if answer.ok]
    if not answers:
        raise SystemExit(f"{url} gave no answer with status 200")
    begun = min(answer.sent for answer in answers)
    return len(answers) / (max(answer.ended for answer in answers) - begun)


def p(answers: Sequence[Answer], percent: float) -> float | None:
    """Percentile of latency in ms; None without answers."""
    return float(np.percentile([answer.ms for answer in answers], percent)) if answers else None


def _answer(row: list) -> Answer:
    sent, ms, status, degraded, bundle, retry_after, least, error = row
    return Answer(sent, ms, status, tuple(degraded), bundle, retry_after, np.nan if least is None else least, error)


# -- the process ------------------------------------------------------------------------------------------------


class Generator:
    def __init__(self, about: dict, session):
        self._url, self._session = f"{about['url']}/v1/recommendations", session
        order = np.random.default_rng(about["seed"]).permutation(len(about["users"]))
        self._users, self._next = [about["users"][i] for i in order], 0
        self._out = Path(about["out"]).open("w", buffering=1)  # noqa: SIM115 - for as long as the process lives
        self._under_way: set[asyncio.Task] = set()
        self.rate = 0.0

    async def ask(self, due: float) -> None:
        """One request; its outcome as one line."""
        import aiohttp
        import orjson

        user = self._users[self._next % len(self._users)]
        self._next += 1
        status, body, retry, error = 0, {}, False, ""
        try:
            async with self._session.post(self._url, json={"user_id": user}) as answer:
                content = await answer.read()
                status, retry = answer.status, "Retry-After" in answer.headers
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

    async def by_the_clock(self) -> None:
        """For ever: one request each 1 / rate seconds."""
        due = time.monotonic()
        while True:
            if self.rate <= 0:
                await asyncio.sleep(0.01)
                due = time.monotonic()
                continue
            due += 1 / self.rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self.ask(due))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def closed(self, callers: int, seconds: float) -> None:
        until = time.monotonic() + seconds

        async def loop() -> None:
            while time.monotonic() < until:
                await self.ask(time.monotonic())

        await asyncio.gather(*(loop() for _ in range(callers)))

    async def rest(self) -> None:
        """Until all that was sent is answered."""
        while self._under_way:
            await asyncio.wait(self._under_way)


async def serve_orders() -> None:
    """Orders come as lines of JSON: about, then rates or a closed loop, then the end."""
    import aiohttp

    orders = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    about = json.loads(await orders.readline())
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        generator = Generator(about, session)
        clock = asyncio.create_task(generator.by_the_clock())
        while line := await orders.readline():
            order = json.loads(line)
            if "callers" in order:
                await generator.closed(order["callers"], order["seconds"])
            generator.rate = order.get("rate", 0.0)
            if "end" in order:
                break
        clock.cancel()
        await generator.rest()


if __name__ == "__main__":
    asyncio.run(serve_orders())
