"""A real browser (Chromium, driven by Playwright), and pages of a shop for it. Every test here is slow."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from console_app import run_console
from listening_shop import ListeningShop
from server_programs import report_missing
from serving_world import write_world

HERE = Path(__file__).parent
DIST = HERE.parent.parent / "clients" / "web" / "dist"
TYPES = {".js": "text/javascript", ".map": "application/json"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("slow")


@pytest.fixture(scope="module")
def browser():
    """A browser, or a skipped test where there is none: `apt install chromium`."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        report_missing("needs chromium: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # tests may run as root
        yield browser
        browser.close()


class PageServer:
    """Serves the built files of the web component and the pages of a test; `asked` has the paths of its requests."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.texts: dict[str, list[str]] = {}  # by path, the answers in their order; the last stays
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                server.asked.append(path)
                kind, body = server.find(path)
                self.send_response(200 if body is not None else 404)
                for name, value in {"Content-Type": kind, "Cache-Control": "no-store", **server.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write((body or "").encode())

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._http.server_port}"

    def find(self, path: str) -> tuple[str, str | None]:
        """Return type and text of a path; None where there is nothing."""
        if path in self.texts:
            texts = self.texts[path]
            return "text/plain", texts.pop(0) if len(texts) > 1 else texts[0]
        folder, _, name = path.removeprefix("/").partition("/")
        file = DIST / name
        if folder in ("dist", "handsell") and file.is_file():
            return TYPES[file.suffix], file.read_text(encoding="utf-8")
        return "text/html; charset=utf-8", self.pages.get(path)

    @contextlib.contextmanager
    def run(self) -> Iterator[PageServer]:
        thread = threading.Thread(target=self._http.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer().run() as pages:
        yield pages


@dataclass(frozen=True)
class ConsoleTab:
    """A tab on the console; `foreign` has requests to other hosts, `mistakes` what the browser complains about."""

    page: Any
    address: str
    shop: ListeningShop
    foreign: list[str]
    mistakes: list[str]

    def open(self, path: str) -> None:
        self.page.goto(self.address + path)

    def find_serious(self) -> list[tuple[str, list[str]]]:
        """Return what axe finds on the page as it is now, of impact serious or critical."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs handsell[browser]").Axe()
        found = [one for one in axe.run(self.page).response["violations"] if one["impact"] in ("serious", "critical")]
        return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


@pytest.fixture(scope="session")
def console_shop(tmp_path_factory) -> Iterator[tuple[str, ListeningShop]]:
    """A small shop's console, for all tests that only look or clean up after themselves."""
    with run_console(write_world(tmp_path_factory.mktemp("console"), with_content=True)) as found:
        yield found


@pytest.fixture
def open_console_tab(browser, console_shop):
    """A function that opens a tab on the console; keywords are those of `browser.new_page`."""
    pages = []

    def open_tab(**looks: Any) -> ConsoleTab:
        page = browser.new_page(**looks)
        page.set_default_timeout(60_000)
        pages.append(page)
        address, shop = console_shop
        tab = ConsoleTab(page, address, shop, [], [])
        host = address.split("/")[2]
        page.on("request", lambda request: request.url.split("/")[2] != host and tab.foreign.append(request.url))
        page.on("pageerror", lambda error: tab.mistakes.append(str(error)))
        page.on("console", lambda line: line.type == "error" and tab.mistakes.append(line.text))
        return tab

    yield open_tab
    for page in pages:
        page.close()
