"""Size and first paint of each page of the console, and latency of recommendations beside ten open consoles.

    make up && python -m benchmarks console
    python -m benchmarks console --seconds 60 --rounds 6 --rate 40

Recommendations are requested at a constant rate, whether or not earlier ones have been answered. Rounds with and
without open consoles take turns; in those with, each console opens another page every --pause seconds. Pages are
painted by Chromium with an empty cache, before the rounds. Clients and browser share the machine's cores with the
service.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from benchmarks.console.visitors import Visitors
from benchmarks.report import write_report
from benchmarks.serving.load_generator import Load
from benchmarks.serving.smoke import sample_users, summarize
from handsell.config import load_config
from handsell.console.pages.registry import PAGES
from handsell.local.service import KEY_VARIABLE, console_url, service_url

PAINT = """() => ({
  paint: performance.getEntriesByName('first-contentful-paint')[0].startTime,
  bytes: [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
    .reduce((sum, one) => sum + one.encodedBodySize, 0),
})"""
MOST_KB, MOST_PAINT_MS = 300, 1_000
SETTLE_S = 2.0  # between two rounds


def list_paths(user: str) -> dict[str, str]:
    """Return the pages by name; Explore with a slate, with a second one, and with the story of nothing yet."""
    paths = {page.title: f"/{page.name}" for page in PAGES}
    paths["Explore, one slate"] = f"/explore?{urlencode({'user': user})}"
    paths["Explore, two slates"] = f"/explore?{urlencode({'user': user, 'diversity': 0.5})}"
    return paths


def measure_pages(console: str, paths: dict[str, str], key: str, paints: int) -> list[dict[str, Any]]:
    """Paint each page with an empty cache; return its size and the median of its first contentful paint."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        sys.exit("expected chromium or google-chrome on the path, found none: install one, or use --paints 0")
    rows = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for name, path in paths.items():
            found = []
            for _ in range(paints):
                context = browser.new_context()  # without a cache
                page = context.new_page()
                if key:
                    page.goto(f"{console}/signin")
                    page.get_by_label("API key").fill(key)
                    page.get_by_role("button", name="Sign in").click()
                page.goto(console + path, wait_until="networkidle")
                found.append(page.evaluate(PAINT))
                context.close()
            paint, kb = statistics.median(one["paint"] for one in found), max(one["bytes"] for one in found) / 1e3
            kept = kb < MOST_KB and paint < MOST_PAINT_MS
            rows.append({"page": name, "kB": kb, "first paint ms": paint, "kept": kept})
        browser.close()
    return rows


def measure_rounds(options: argparse.Namespace, url: str, console: str, users: list[str], key: str) -> list[dict]:
    """Return latencies of recommendations without and with open consoles, all rounds of each together."""
    found: dict[int, list[float]] = {0: [], options.consoles: []}
    failed, visited, missed = dict.fromkeys(found, 0), list[float](), 0
    paths = list(list_paths(users[0]).values())
    with tempfile.TemporaryDirectory() as folder:
        load = Load(url, users, Path(folder))
        load.set_rate(options.rate)
        time.sleep(SETTLE_S)
        for place in range(2 * options.rounds):
            count = (0, options.consoles)[place % 2]
            visitors = Visitors(console, paths, count, options.pause, key) if count else None
            with visitors or contextlib.nullcontext():
                time.sleep(SETTLE_S)
                begun = time.monotonic()
                time.sleep(options.seconds)
                ended = time.monotonic()
                if visitors is not None:
                    seen = visitors.read()
                    visited, missed = [*visited, *seen["ms"]], missed + seen["failed"]
            within = [one for one in load.responses(begun) if one.sent < ended]
            found[count] += [one.ms for one in within if one.ok]
            failed[count] += sum(not one.ok for one in within)
        load.stop()
    rows = [
        {"open consoles": count, **_name(summarize(each)), "failed": failed[count]} for count, each in found.items()
    ]
    return [*rows, {"open consoles": "their pages", **_name(summarize(visited)), "failed": missed}]


def _name(summary: dict) -> dict[str, Any]:
    return {"answers": summary["n"], **{f"{name} ms": summary[name] for name in ("p50", "p95", "p99")}}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks console", description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--url", help="address of the service (default: from the config)")
    parser.add_argument("--console", help="address of the console (default: /console of the service)")
    parser.add_argument("--consoles", type=int, default=10)
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between two pages of one console")
    parser.add_argument("--rate", type=float, default=20.0, help="recommendations per second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=4, help="with open consoles, and as many without")
    parser.add_argument("--paints", type=int, default=5, help="of each page; 0: without a browser")
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    config = load_config(options.config)
    url = (options.url or service_url(config)).rstrip("/")
    console = (options.console or (f"{url}/console" if options.url else console_url(config))).rstrip("/")
    try:
        httpx.get(f"{url}/readyz", timeout=10, trust_env=False).raise_for_status()
        httpx.get(f"{console}/healthz", timeout=10, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        sys.exit(
            f"expected a ready service at {url} and its console at {console}, got: {error}. Start it with `make up`"
        )
    key, users = os.environ.get(KEY_VARIABLE, ""), sample_users(config, 500)
    pages = measure_pages(console, list_paths(users[0]), key, options.paints) if options.paints else []
    rows = measure_rounds(options, url, console, users, key)
    about = {"rate": options.rate, "seconds": options.seconds, "rounds": options.rounds, "pause": options.pause}
    write_report("console", rows, about, options.json, {"pages": pages} if pages else None)
    sys.exit(not all(row["kept"] for row in pages) or any(row["failed"] for row in rows))


if __name__ == "__main__":
    main()
