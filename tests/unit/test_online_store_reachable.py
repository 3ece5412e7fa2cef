"""`make up` checks the address of the online store before it changes anything."""

import socket

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from handsell.core.errors import HandsellError
from handsell.core.paths import Layout, has_content
from handsell.jobs.features.materialization import is_filled
from handsell.local import up
from handsell.local.online_store import require_online_store


@pytest.fixture
def ports():
    """A port that listens, and one that does not."""
    with socket.socket() as listening, socket.socket() as closed:
        for one in (listening, closed):
            one.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1], closed.getsockname()[1]


def test_a_store_that_listens_and_a_file_are_accepted(configured, ports, monkeypatch):
    config = configured('name = "shop"')
    require_online_store(config)
    for store in ("127.0.0.1:{0},password=p:1", "127.0.0.1:{1},127.0.0.1:{0}"):
        monkeypatch.setenv("HANDSELL_ONLINE_STORE", store.format(*ports))
        require_online_store(config)


@pytest.mark.parametrize("store", ["127.0.0.1:{1},password=hunter2", "127.0.0.1:", "127.0.0.1:99999", "[::1]:x", ":"])
def test_a_store_that_does_not_listen_is_one_sentence_without_its_password(configured, ports, monkeypatch, store):
    config = configured('name = "shop"')
    monkeypatch.setenv("HANDSELL_ONLINE_STORE", store.format(*ports))
    monkeypatch.setattr(up.cluster, "stop", lambda *_: pytest.fail("the running cluster was stopped"))
    with pytest.raises(HandsellError, match="cannot reach the online store") as raised:
        up.start_everything(config)
    assert "hunter2" not in str(raised.value) and "\n" not in str(raised.value)


def test_an_online_store_in_a_file_is_filled_if_the_file_has_content(configured):
    config = configured('name = "shop"')
    path = Layout(config.state).feast / "online.db"
    path.parent.mkdir(parents=True)
    assert not is_filled(config)
    path.write_bytes(b"")
    assert not is_filled(config)
    path.write_bytes(b"x")
    assert is_filled(config)


def test_a_folder_has_content_if_it_has_files_and_none_is_empty(tmp_path):
    folder = tmp_path / "catalog"
    assert not has_content(folder)
    (folder / "items").mkdir(parents=True)
    assert not has_content(folder)
    (folder / "items" / "a").write_bytes(b"x")
    assert has_content(folder, folder / "items" / "a")
    assert not has_content(folder, tmp_path / "gone")
    (folder / "items" / "b").write_bytes(b"")
    assert not has_content(folder)


@pytest.mark.parametrize(("row", "filled"), [([3], True), ([None], False), (RuntimeError("no answer"), False)])
def test_a_redis_is_filled_if_it_has_the_row_of_a_user(configured, monkeypatch, row, filled):
    class Store:
        def online_users(self, ids):
            assert ids == ["u/1"]
            if isinstance(row, Exception):
                raise row
            return {"events": row}

    monkeypatch.setattr("handsell.features.store.open_store", lambda _: Store())
    config = configured('name = "shop"\n[features]\nonline_store = "localhost:6379"')
    assert not is_filled(config)
    part = Layout(config.state).features / "user_activity" / "part-0.parquet"
    part.parent.mkdir(parents=True)
    pq.write_table(pa.table({"user_id": ["u/1", "u/2"]}), part)
    assert is_filled(config) == filled
