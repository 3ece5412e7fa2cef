"""Tables at URIs: a web server, and an S3 server."""

import gzip
import http.server
import threading
from functools import partial
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from handsell.cli.arguments import load
from handsell.core.errors import DataError
from handsell.data.config import TablesConfig
from handsell.data.readers.base import NULLABLE_EVENTS, read_all_events
from handsell.data.readers.detect import open_reader
from handsell.data.readers.tables import Tables
from s3_server import BUCKET

HEADER = "user_id,item_id,time\n"


class WholeFiles(http.server.SimpleHTTPRequestHandler):
    """Send whole files, as the standard library does."""

    def log_message(self, *arguments) -> None:
        pass


class Ranges(WholeFiles):
    """Send ranges of files, as most web servers do."""

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        if not wanted:
            return super().do_GET()
        data = Path(self.translate_path(self.path)).read_bytes()
        first, last = wanted.removeprefix("bytes=").split("-")
        part = data[int(first) : int(last or len(data)) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture(params=[WholeFiles, Ranges])
def web(request, tmp_path):
    """Address of a web server that serves tmp_path."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(request.param, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def open_tables(folder, **tables) -> Tables:
    return Tables(folder, TablesConfig.model_validate(tables), ("click",))


def read_users(source) -> list[str]:
    return pa.Table.from_batches(list(read_all_events(source)), NULLABLE_EVENTS)["user_id"].to_pylist()


def write_tables(folder) -> None:
    (folder / "a.csv").write_bytes(f"{HEADER}ü,i,1777636800\n".encode("cp1252"))
    (folder / "b.csv.gz").write_bytes(gzip.compress(f"{HEADER}v,i,1777636800\n".encode()))
    pq.write_table(pa.table({"user_id": ["w"], "item_id": ["i"], "time": [1_777_636_800]}), folder / "c.parquet")


def test_tables_on_a_web_server(tmp_path, web):
    write_tables(tmp_path)
    for name, user in (("a.csv", "ü"), ("b.csv.gz?key=1", "v"), ("c.parquet", "w")):
        source = open_tables(tmp_path, events={"path": f"{web}/{name}"}, items={"path": f"{web}/{name}"})
        assert read_users(source) == [user]
        assert source.items()["item_id"].to_pylist() == ["i"]
        (file,) = {file.uri: file for file in source.files()}.values()
        assert file.stat().st_size == (tmp_path / name.partition("?")[0]).stat().st_size
        assert file.stat().st_mtime_ns > 0


def test_the_folder_of_the_data_may_be_a_uri(tmp_path, web, configured, monkeypatch):
    write_tables(tmp_path)
    tables = """
        name = "shop"
        [events.types]
        click = {}
        [data.tables.events]
        path = "a.csv"
        [data]
        format = "FORMAT"
        """
    config = configured(tables.replace("FORMAT", "tables") + f'path = "{web}"')
    assert read_users(open_reader(config)) == ["ü"]
    config = configured(tables.replace("FORMAT", "tables") + 'path = "nowhere"')
    monkeypatch.setenv("HANDSELL_DATA", f"{web}/?key=1")
    assert [file.uri for file in open_reader(config).files()] == [f"{web}/a.csv?key=1"]
    assert load(config.source, f"{web}/").data_uri == f"{web}/"
    config = configured(tables.replace("FORMAT", "movielens"))
    with pytest.raises(DataError, match=r"data\.path \(http://.*: only tables are read from URIs"):
        open_reader(config)


def test_errors_of_web_addresses_name_them(tmp_path, web):
    for name in ("no.csv", "no.parquet"):
        with pytest.raises(DataError, match=rf"{web}/{name} cannot be read: .*check the address"):
            read_users(open_tables(tmp_path, events={"path": f"{web}/{name}"}))
    with pytest.raises(DataError, match=r"ending in .parquet.*got a\.json"):
        read_users(open_tables(tmp_path, events={"path": f"{web}/a.json"}))
    (tmp_path / "bad.csv").write_text(f"{HEADER}u,i\n")
    with pytest.raises(DataError, match=rf"{web}/bad\.csv: line 2, after column item_id: expected 3 columns, got 2"):
        read_users(open_tables(tmp_path, events={"path": f"{web}/bad.csv"}))


def test_unknown_kinds_of_addresses_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"ftp://x/a\.csv: expected an address that begins with s3://"):
        read_users(open_tables(tmp_path, events={"path": "ftp://x/a.csv"}))


def test_a_folder_named_by_a_file_uri(tmp_path):
    write_tables(tmp_path)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "d.json").write_text("{}")
    source = open_tables(tmp_path, events={"path": tmp_path.as_uri()})
    assert read_users(source) == ["ü", "v", "w"]
    assert [file.name for file, _ in source.skipped_files()] == ["d.json"]
    with pytest.raises(DataError, match="does not exist"):
        read_users(open_tables(tmp_path, events={"path": (tmp_path / "no").as_uri()}))


@pytest.fixture
def bucket(s3_server):
    """URI of a folder on an S3 server, and its address for uploads."""
    options = f"endpoint_override=127.0.0.1:{s3_server.port}&scheme=http&region=us-east-1"
    return f"s3://key:secret@{BUCKET}/my log?{options}", f"{s3_server.address}/{BUCKET}/my%20log"


def test_a_folder_in_an_object_store(tmp_path, bucket):
    uri, address = bucket
    write_tables(tmp_path)
    (tmp_path / "d.json").write_text("{}")
    (tmp_path / "e.csv").touch()
    for path in tmp_path.iterdir():
        httpx.put(f"{address}/{path.name}", content=path.read_bytes(), trust_env=False).raise_for_status()
    source = open_tables(tmp_path, events={"path": uri}, items={"path": uri.replace("my log", "my log/a.csv")})
    assert read_users(source) == ["ü", "v", "w"]
    assert source.items()["item_id"].to_pylist() == ["i"]
    assert [file.name for file, _ in source.skipped_files()] == ["d.json", "e.csv"]
    assert source.files()[0].stat().st_size == (tmp_path / "a.csv").stat().st_size
    assert source.files()[0].stat().st_mtime_ns > 0
    with pytest.raises(DataError, match="does not exist") as error:
        read_users(open_tables(tmp_path, events={"path": uri.replace("my log", "no")}))
    assert "secret" not in str(error.value)
    assert "secret" not in str(source.files()[0]) and "secret" not in source.source
