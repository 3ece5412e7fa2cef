"""A real browser (Chromium, driven by Playwright), and pages of a shop for it. Every test here is slow."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from server_programs import report_missing

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
