"""People with open consoles: each opens page after page, with a pause between them."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import httpx

TIMEOUT_S = 30.0


class Visitors:
    """Visitors in another process while the block runs; `read` returns what they have waited for (ms), and failures."""

    def __init__(self, console: str, paths: Sequence[str], count: int, pause_s: float, key: str):
        self._given = {"console": console, "paths": list(paths), "count": count, "pause_s": pause_s, "key": key}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Visitors:
        command = [sys.executable, "-m", "benchmarks.console.visitors"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._given) + "\n")
        self._process.stdin.flush()
        return self

    def read(self) -> dict[str, Any]:
        """End the visits and return their figures."""
        assert self._process is not None
        out, _ = self._process.communicate()  # the end of its input ends it
        found: dict[str, Any] = json.loads(out)
        return found

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


async def visit(given: dict[str, Any], until: asyncio.Event) -> dict[str, Any]:
    """Open pages until the event is set; each visitor begins at another page."""
    waited: list[float] = []
    failed = 0

    async def walk(place: int) -> None:
        nonlocal failed
        # a connection and cookies of their own
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=True, trust_env=False) as client:
            if given["key"]:
                await client.post(f"{given['console']}/signin", data={"key": given["key"]})
            await asyncio.sleep(given["pause_s"] * place / given["count"])
            for path in itertools.islice(itertools.cycle(given["paths"]), place, None):
                if until.is_set():
                    return
                begun = time.perf_counter()
                try:
                    response = await client.get(given["console"] + path)
                    failed += response.status_code != 200
                    waited.append((time.perf_counter() - begun) * 1e3)
                except httpx.HTTPError:
                    failed += 1
                await asyncio.sleep(given["pause_s"])

    await asyncio.gather(*(walk(place) for place in range(given["count"])))
    return {"ms": waited, "failed": failed}


async def visit_until_input_ends(given: dict[str, Any]) -> dict[str, Any]:
    ended = asyncio.Event()

    async def wait() -> None:
        await asyncio.to_thread(sys.stdin.read)
        ended.set()

    found, _ = await asyncio.gather(visit(given, ended), wait())
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(visit_until_input_ends(json.loads(sys.stdin.readline())))))
