"""A person is found in files of every kind, and removed from them; ids that contain the person's id stay."""

import gzip
import json
import sqlite3
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from handsell.jobs.erasure.files import BLOCK, count_in_file, remove_from_file
from handsell.jobs.erasure.person import Person

PEOPLE = {"customer-7": "customer-70", "u1": "u10", "7": "77", "anna@x.de": "joanna@x.de", "ä/ö 1": "ä/ö 12"}
PEOPLE_CASES = list(PEOPLE.items())


def write_parquet(path, ids):
    table = pa.table({"user_id": ids, "item_id": ids, "value": pa.array(range(len(ids)))})
    pq.write_table(table.replace_schema_metadata({"made by": f"user_id={ids[0]}"}), path, row_group_size=2)


@pytest.mark.parametrize(("one", "other"), PEOPLE_CASES)
def test_parquet_rows(tmp_path, one, other):
    path = tmp_path / "x.parquet"
    write_parquet(path, [one, other, one, other, None])
    assert count_in_file(path, Person((one,))) >= 2
    assert remove_from_file(path, Person((one,))) == 2
    assert count_in_file(path, Person((one,))) == 0
    assert pq.read_table(path)["value"].to_pylist() == [1, 3, 4]
    assert list(tmp_path.iterdir()) == [path]


def test_an_item_with_the_id_of_a_person_stays(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"user_id": ["u2", "u3"], "item_id": ["customer-7"] * 2, "top_creators": [["customer-7"]] * 2}), path
    )
    assert count_in_file(path, Person(("customer-7",))) == 0
    assert remove_from_file(path, Person(("customer-7",))) == 0 and pq.ParquetFile(path).metadata.num_rows == 2


def test_changes_of_a_user_but_not_of_an_item(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"kind": ["user", "item", "user"], "id": ["7", "7", "8"], "fields": ["{}"] * 3}), path)
    assert count_in_file(path, Person(("7",))) == 1
    assert remove_from_file(path, Person(("7",))) == 1
    assert pq.read_table(path)["id"].to_pylist() == ["7", "8"]


def test_a_leak_in_a_column_that_nobody_expects(tmp_path):
    path = tmp_path / "x.parquet"
    notes = [{"who": ["customer-7"]}, {"who": ["customer-70"]}]
    pq.write_table(pa.table({"note": notes, "json": ['{"id": "customer-70"}', '{"id": "customer-7"}']}), path)
    assert count_in_file(path, Person(("customer-7",))) == 2
    remove_from_file(path, Person(("customer-7",)))
    assert count_in_file(path, Person(("customer-7",))) == 0


@pytest.mark.parametrize(("one", "other"), PEOPLE_CASES)
def test_sqlite_rows_are_overwritten(tmp_path, one, other):
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute('CREATE TABLE "a b" (user_id TEXT, entity_key BLOB, item_id TEXT)')
        for user in (one, other):
            key = b"\x02\0\0\0user_id" + len(user.encode()).to_bytes(4, "little") + user.encode()
            database.execute('INSERT INTO "a b" VALUES (?, ?, ?)', (user, b"", user))
            database.execute('INSERT INTO "a b" VALUES (?, ?, ?)', ("", key, user))
        database.commit()
        assert count_in_file(path, Person((one,))) == 2
        assert remove_from_file(path, Person((one,))) == 2
        assert count_in_file(path, Person((one,))) == 0
        assert database.execute('SELECT count(*), max(item_id) FROM "a b"').fetchone() == (2, other)
    if one == "anna@x.de":  # of the others, the name of the other person contains it
        raw = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert raw.count(one.encode()) == raw.count(other.encode()) > 0


@pytest.mark.parametrize(("one", "other"), PEOPLE_CASES)
def test_logs_are_masked_in_place(tmp_path, one, other):
    path = tmp_path / "serve.log"
    lines = [
        json.dumps({"user_id": user, "rank": 7, "item_id": "7"}) + f" GET user={user}, '{user}'\n"
        for user in (one, other)
    ]
    path.write_text("".join(lines))
    size, inode = path.stat().st_size, path.stat().st_ino
    assert remove_from_file(path, Person((one,))) >= 2
    assert count_in_file(path, Person((one,))) == 0
    assert (path.stat().st_size, path.stat().st_ino) == (size, inode)
    first, second = path.read_text().splitlines(keepends=True)
    assert second == lines[1]
    assert '"rank": 7, "item_id": "7"' in first and set(json.loads(first[: first.index("}") + 1])["user_id"]) == {"*"}


def test_urls_and_escaped_json(tmp_path):
    path = tmp_path / "x.log"
    path.write_text(
        'GET /v1/users/acme%2F7/recommendations\n{"user_id": "acme\\/7"}\n/v1/users/acme%2F77/blocks "acme/7"\n'
    )
    assert remove_from_file(path, Person(("acme/7",))) == 2
    assert "acme%2F77" in path.read_text() and "users/acme%2F7/" not in path.read_text()


def test_a_merged_visitor_is_another_person_than_a_user_of_the_same_name(tmp_path):
    path = tmp_path / "x.log"
    path.write_text("anonymous:visitor-1 visitor-1\n")
    assert remove_from_file(path, Person(("visitor-1",))) == 1
    assert path.read_text().startswith("anonymous:visitor-1 *********")
    assert remove_from_file(path, Person(("anonymous:visitor-1",))) == 1


def test_long_text_is_searched_in_blocks(tmp_path):
    path = tmp_path / "x.log"
    places = [0, BLOCK - 5_000, BLOCK - 4_096, BLOCK - 20, BLOCK - 3, BLOCK + 50, 2 * BLOCK - 4_100, 2 * BLOCK + 9]
    text = bytearray(b" " * (2 * BLOCK + 100))
    for place in places:
        text[place : place + 10] = b"customer-7"
    path.write_bytes(text)
    assert count_in_file(path, Person(("customer-7",))) == len(places)
    assert remove_from_file(path, Person(("customer-7",))) == len(places)
    assert set(path.read_bytes()) == {ord(" "), ord("*")}


def test_compressed_logs_and_arrays(tmp_path):
    log = tmp_path / "x.log.gz"
    log.write_bytes(gzip.compress(b"user customer-7 customer-70\n"))
    assert remove_from_file(log, Person(("customer-7",))) == 1
    assert gzip.decompress(log.read_bytes()) == b"user ********** customer-70\n"
    np.save(tmp_path / "a.npy", np.array(["customer-7", "customer-70"]))
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.array(['["customer-7"]']))
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, pa.schema([("id", pa.string())])) as out,
    ):
        out.write_table(pa.table({"id": ["customer-7", "customer-70"]}))
    for name in ("a.npy", "a.npz", "a.arrow"):
        assert count_in_file(tmp_path / name, Person(("customer-7",))) == 1, name
