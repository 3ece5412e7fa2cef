"""The documentation site in a browser: search finds a page, axe finds nothing serious, light or dark."""

import functools
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

ROOT = Path(__file__).parents[2]
PATIENCE_MS = 60_000
PAGES = ("tutorial", "notebooks/offline")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_search_finds_a_page_and_asks_no_other_host(address, browser):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    asked = set()
    page.on("request", lambda request: asked.add("/".join(request.url.split("/")[:3])))
    page.goto(f"{address}/index.html")
    page.locator(".md-search[aria-label]").wait_for(
        state="attached"
    )  # what is typed before the script runs is not searched
    page.get_by_placeholder("Search").fill("fatigue")
    page.locator(".md-search-result__link", has_text="Exploration, new items, fatigue").first.click()
    page.wait_for_url("**/exploration.html**")
    assert asked == {address}
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(address, browser, name, scheme):
    page = browser.new_page(color_scheme=scheme)
    page.goto(f"{address}/{name}.html")
    page.locator(".md-search[aria-label]").wait_for(state="attached")
    found = Axe().run(page).response["violations"]
    page.close()
    assert not [one["id"] for one in found if one["impact"] in ("serious", "critical")]
