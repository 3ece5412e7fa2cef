"""Downloads against a local HTTP server: checksum, resume, atomic unpacking, unsafe archives."""

import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from handsell.core.errors import DataError
from handsell.data import download
from handsell.data.readers.detect import detect

RATINGS = "userId,movieId,rating,timestamp\n" + "".join(f"1,{m},4.0,{m}\n" for m in range(2_000))


def archive(**files: str) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as zipped:
        for name, text in files.items():
            zipped.writestr(name, text)
    return raw.getvalue()


GOOD = archive(**{"ml-1m/ratings.csv": RATINGS, "ml-1m/movies.csv": "movieId,title,genres\n1,A (2000),Drama\n"})


class Files(BaseHTTPRequestHandler):
    """Serves `server.files`, with ranges; closes early after `server.cut` bytes of a zip."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        body = self.server.files.get(self.path)
        if body is None:
            return self.send_error(404)
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if self.server.ranges else 0
        if start and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = self.server.cut if self.path.endswith(".zip") else None
        self.wfile.write(body[start:][:cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    http = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    http.asked, http.ranges, http.cut = [], True, None
    http.files = {"/ml-1m.zip": GOOD, "/ml-1m.zip.md5": f"MD5 (ml-1m.zip) = {hashlib.md5(GOOD).hexdigest()}\n".encode()}
    http.base = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield http
    http.shutdown()
    thread.join()
    http.server_close()


def fetch(server, folder, said=None):
    return download.fetch("ml-1m", folder, base=server.base, progress=(said if said is not None else []).append)


def serve(server, body: bytes) -> None:
    server.files["/ml-1m.zip"] = body
    server.files["/ml-1m.zip.md5"] = hashlib.md5(body).hexdigest().encode()


def test_downloads_verifies_unpacks_and_does_not_repeat_it(server, tmp_path):
    said: list[str] = []
    folder = fetch(server, tmp_path / "downloads", said)
    assert folder == tmp_path / "downloads/ml-1m"
    assert (folder / "ratings.csv").read_text() == RATINGS
    assert len(detect(folder).items()) == 1
    assert [p.name for p in folder.parent.iterdir()] == ["ml-1m"]
    assert any("MB" in line for line in said) and "checksum" in said[-1]
    asked = len(server.asked)
    fetch(server, tmp_path / "downloads")
    assert len(server.asked) == asked


def test_a_broken_connection_is_reported_and_resumed(server, tmp_path):
    server.cut = len(GOOD) // 2
    with pytest.raises(DataError, match=r"download failed: the connection closed after .*it resumes"):
        fetch(server, tmp_path)
    assert (tmp_path / "ml-1m.zip.part").stat().st_size == len(GOOD) // 2
    server.cut = None
    assert (fetch(server, tmp_path) / "ratings.csv").read_text() == RATINGS
    assert server.asked[-1] == ("/ml-1m.zip", f"bytes={len(GOOD) // 2}-")


def test_a_server_without_ranges_starts_over(server, tmp_path):
    (tmp_path / "ml-1m.zip.part").write_bytes(b"left over from another day")
    server.ranges = False
    assert (fetch(server, tmp_path) / "ratings.csv").read_text() == RATINGS


def test_a_complete_part_is_not_fetched_again(server, tmp_path):
    (tmp_path / "ml-1m.zip.part").write_bytes(GOOD)
    assert (fetch(server, tmp_path) / "ratings.csv").read_text() == RATINGS


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(server, tmp_path):
    server.files["/ml-1m.zip"] = GOOD[:-1] + b"x"
    with pytest.raises(DataError, match=r"checksum mismatch: expected MD5 [0-9a-f]{32}, got [0-9a-f]{32}"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt", "ml-1m/../../evil.txt"])
def test_an_archive_that_leaves_its_folder_is_refused(server, tmp_path, name):
    serve(server, archive(**{name: "x"}))
    with pytest.raises(DataError, match="leaves the folder"):
        fetch(server, tmp_path / "downloads")
    assert not (tmp_path / "downloads/ml-1m").exists()
    assert not (tmp_path / "evil.txt").exists()


def test_not_a_zip_not_there_not_known(server, tmp_path):
    serve(server, b"<html>moved</html>")
    with pytest.raises(DataError, match="not a readable zip"):
        fetch(server, tmp_path)
    server.files["/ml-1m.zip.md5"] = b"<html>moved</html>"
    with pytest.raises(DataError, match="expected an MD5 checksum, got '<html>"):
        fetch(server, tmp_path)
    server.files.clear()
    with pytest.raises(DataError, match="download failed: HTTP Error 404"):
        fetch(server, tmp_path)
    with pytest.raises(DataError, match="expected one of ml-latest-small"):
        download.fetch("ml-9b", tmp_path, base=server.base)


def test_nobody_listens(tmp_path):
    with pytest.raises(DataError, match=r"set data\.path or DATA"):
        download.fetch("ml-1m", tmp_path, base="http://127.0.0.1:9", progress=[].append)
