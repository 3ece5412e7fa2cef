"""`make install`: where torch comes from. The environment's Python is one that notes its arguments."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTING = """#!/bin/sh
case "$1" in
  -m) echo "$@" >> "$NOTED"; case "$*" in *--index-url*) exit ${INDEX_STATUS:-0};; esac;;
  *) exec "$REAL" "$@";;
esac
"""


class Index(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/torch/" else 404)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def index():
    server = HTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent():
    """An address that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def install(tmp_path):
    """Function that runs `make install` and returns what pip was asked, without its common options."""

    def run(index: str, has_gpu: bool = False, status: int = 0) -> list[str]:
        programs, environment = tmp_path / "programs", tmp_path / "venv"
        for folder in (programs, environment / "bin"):
            folder.mkdir(parents=True, exist_ok=True)
        (programs / "nvidia-smi").write_text(f"#!/bin/sh\nexit {0 if has_gpu else 9}\n")
        (environment / "bin" / "python").write_text(NOTING)
        for program in (programs / "nvidia-smi", environment / "bin" / "python"):
            program.chmod(0o755)
        noted = tmp_path / "noted"
        variables = {"PATH": f"{programs}:{os.environ['PATH']}", "NOTED": str(noted), "REAL": sys.executable}
        done = subprocess.run(
            ["make", "install", f"VENV={environment}", f"TORCH_CPU={index}", f"PYTHON={sys.executable}"], cwd=ROOT,
            env=os.environ | variables | {"INDEX_STATUS": str(status)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return [line.split("version-check ")[1] for line in noted.read_text().splitlines()]

    if not shutil.which("make"):
        pytest.skip("no make")
    return run


TORCH = next(line.split()[-1] for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("TORCH :="))
PYPI = f"--constraint constraints.txt {TORCH}"
LAST = "--constraint constraints.txt --editable .[dev]"


def test_the_version_of_torch_is_the_pinned_one():
    assert TORCH in (ROOT / "constraints.txt").read_text().splitlines()


def test_without_a_gpu_pytorchs_own_index_is_asked(install, index):
    assert install(index) == [f"--no-deps --index-url {index} {TORCH}", LAST]


def test_with_a_gpu_torch_comes_from_pypi(install, index):
    assert install(index, has_gpu=True) == [PYPI, LAST]


def test_an_index_that_does_not_answer_is_left_out(install, silent):
    assert install(silent) == [PYPI, LAST]


def test_an_index_without_such_a_page_is_left_out(install, index):
    assert install(f"{index}/elsewhere") == [PYPI, LAST]


def test_an_index_without_this_version_is_followed_by_pypi(install, index):
    assert install(index, status=1) == [f"--no-deps --index-url {index} {TORCH}", PYPI, LAST]
