"""The data job end to end on Ray: counts, order, append-only numbers, and what it skips."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import load_config
from handsell.core.errors import DataError
from handsell.core.paths import Layout
from handsell.data.interaction_parts import list_parts, read_part
from handsell.data.interactions import NUMBERED, Interactions
from handsell.jobs.ingest import ingest as job

pytestmark = pytest.mark.usefixtures("ray_cluster")

SHOP = """
name = "shop"
[data]
format = "tables"
[data.tables.events]
path = "events"
[data.tables.items]
path = "items.csv"
[events.types]
view = { weight = 1.0 }
buy = { weight = 3.0 }
[jobs]
partitions = 3
"""


def quiet(text: str) -> None:
    pass


@pytest.fixture
def shop(tmp_path, configured):
    """A config, and two event files with a duplicate across them, a hole, and an item that nobody describes."""
    (tmp_path / "events").mkdir()
    head = "event_id,user_id,item_id,time,type\n"
    (tmp_path / "events/1.csv").write_text(head + "e1,u1,a,100,view\ne2,u2,b,100,buy\ne3,u1,b,100,buy\n")
    (tmp_path / "events/2.csv").write_text(head + "e2,u2,b,100,buy\ne4,u3,new,50,view\ne5,,a,60,view\n")
    (tmp_path / "items.csv").write_text("item_id,title,creators,tags\nb,B,Bolt,x|y\na,A,Acme,y\nidle,I,Acme,z\n")
    return configured(SHOP)


def ids(config, name: str) -> list[str]:
    vocabulary = Vocabulary.load(Layout(config.state).catalog / name)
    return vocabulary.ids(np.arange(len(vocabulary)))


def list_folders(config) -> set[str]:
    return {path.name for path in config.state.iterdir() if path.is_dir()}


def log(config) -> list[tuple]:
    layout = Layout(config.state)
    rows = Interactions.from_table(
        pa.concat_tables(map(read_part, list_parts(layout.interactions))),
        len(ids(config, "users")),
        len(ids(config, "items")),
    )
    return list(zip(rows.user.tolist(), rows.item.tolist(), rows.time.tolist(), rows.weight.tolist(), strict=True))


def test_a_small_shop_by_hand(shop):
    counts = job.prepare(shop, quiet)
    layout = Layout(shop.state)
    assert {k: counts[k] for k in ("events", "duplicates", "dropped", "items", "users", "partitions")} == {
        "events": 4, "duplicates": 1, "dropped": 1, "items": 4, "users": 3, "partitions": 3,
    }  # fmt: skip
    assert (counts["first_us"], counts["last_us"], counts["ordered"]) == (50_000_000, 100_000_001, True)
    assert ids(shop, "items") == ["b", "a", "idle", "new"]
    assert ids(shop, "users") == ["u1", "u2", "u3"]
    assert ids(shop, "creators") == ["Bolt", "Acme"]
    assert ids(shop, "tags") == ["x", "y", "z"]
    assert log(shop) == [
        (0, 1, 100_000_000, 1.0),
        (0, 0, 100_000_001, 3.0),
        (1, 0, 100_000_000, 3.0),
        (2, 3, 50_000_000, 1.0),
    ]
    for number, path in enumerate(list_parts(layout.interactions)):
        part = read_part(path)
        assert path.name == f"part-{number:05d}.parquet" and part.schema == NUMBERED
        assert set(np.unique(part["user"].to_numpy() % 3)) <= {number}
    items = pq.read_table(layout.items)
    assert items["title"].to_pylist() == ["B", "A", "I", None]
    assert items["available"].to_pylist() == [None, None, None, False] and counts["deleted_items"] == 1
    assert json.loads(layout.data_meta.read_text())["fingerprint"] == counts["fingerprint"]
    assert list_folders(shop) == {"data", "catalog", "interactions"}


@pytest.mark.parametrize("damaged", ["catalog/users/hashes.npy", "interactions/part-00000.parquet"])
def test_an_empty_file_of_the_last_run_is_written_again(shop, damaged):
    before = job.prepare(shop, quiet)
    (shop.state / damaged).write_bytes(b"")
    assert job.prepare(shop, quiet)["events"] == before["events"]
    assert (shop.state / damaged).stat().st_size > 0


def test_unchanged_data_is_skipped_and_new_events_keep_the_numbers(shop, tmp_path):
    before = job.prepare(shop, quiet)
    assert not before["skipped"] and job.prepare(shop, quiet) == {**before, "skipped": True}
    (tmp_path / "events/0.csv").write_text("event_id,user_id,item_id,time,type\ne9,u0,zzz,10,view\n")
    (tmp_path / "items.csv").write_text("item_id,title,creators,tags\nfresh,F,New,z|w\nb,B2,Bolt,x\n")
    after = job.prepare(shop, quiet)
    assert (after["skipped"], after["events"]) == (False, 5)
    assert ids(shop, "items") == ["b", "a", "idle", "new", "fresh", "zzz"]
    assert ids(shop, "users") == ["u1", "u2", "u3", "u0"]
    assert ids(shop, "tags") == ["x", "y", "z", "w"]
    items = pq.read_table(Layout(shop.state).items)
    assert items["title"].to_pylist() == ["B2", None, None, None, "F", None]
    # a, new and zzz have events, but no row any more; idle has neither
    assert items["available"].to_pylist() == [None, False, False, False, None, False]
    assert after["deleted_items"] == 3


def test_deleted_items_are_recommended_where_the_config_says_so_or_there_is_no_items_table(shop, configured):
    allowed = configured(SHOP.replace("[data]", "[data]\nrecommend_deleted_items = true"))
    assert job.prepare(allowed, quiet)["deleted_items"] == 0
    assert pq.read_table(Layout(allowed.state).items)["available"].to_pylist() == [None] * 4
    bare = configured(SHOP.replace('[data.tables.items]\npath = "items.csv"\n', ""))
    assert job.prepare(bare, quiet)["deleted_items"] == 0
    assert pq.read_table(Layout(bare.state).items)["available"].to_pylist() == [None, None, False, None]  # idle


def test_changed_event_weights_rerun_the_job(shop, configured):
    job.prepare(shop, quiet)
    changed = configured(SHOP.replace("3.0", "5.0"))
    assert not job.prepare(changed, quiet)["skipped"]
    assert max(weight for *_, weight in log(changed)) == 5.0


def test_a_failed_run_leaves_the_old_data(shop, tmp_path):
    job.prepare(shop, quiet)
    (tmp_path / "events/3.csv").write_text("event_id,user_id,item_id,time,type\ne7,u1,a,never,view\n")
    with pytest.raises(DataError, match=r"3\.csv: column time .* got 'never'"):
        job.prepare(shop, quiet)
    assert len(log(shop)) == 4
    assert list_folders(shop) == {"data", "catalog", "interactions"}


def test_unknown_types_and_empty_data_are_refused(shop, tmp_path):
    (tmp_path / "events/3.csv").write_text("event_id,user_id,item_id,time,type\ne7,u1,a,5,wish\n")
    with pytest.raises(DataError, match=r"expected view, buy .* also got 'wish'"):
        job.prepare(shop, quiet)
    for path in (tmp_path / "events").iterdir():
        path.write_text("event_id,user_id,item_id,time,type\n")
    with pytest.raises(DataError, match="no usable events"):
        job.prepare(shop, quiet)


def test_partitions_grow_with_events(shop, monkeypatch):
    monkeypatch.setattr(job, "EVENTS_PER_PARTITION", 1)
    assert job.prepare(shop, quiet)["partitions"] == 5
    assert len(log(shop)) == 4


@pytest.mark.data
@pytest.mark.parametrize(
    ("config", "data", "counts"),
    [
        ("movielens", "ml-latest-small", (100_004, 671, 9_125)),
        ("movielens", "ml-100k", (100_000, 943, 1_682)),
        ("sequences", "amazon-beauty", (198_502, 22_363, 12_101)),
    ],
)
def test_real_data(test_data, repository, tmp_path, monkeypatch, config, data, counts):
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path))
    monkeypatch.setenv("HANDSELL_DATA", str(test_data(data)))
    loaded = load_config(repository / f"deployments/configs/{config}.toml")
    found = job.prepare(loaded, quiet)
    assert (found["events"], found["users"], found["items"]) == counts
    assert (found["duplicates"], found["dropped"], found["ordered"]) == (0, 0, config == "movielens")
    rows = Interactions.read(list_parts(Layout(loaded.state).interactions), *counts[1:])
    assert len(rows) == counts[0]
    same = rows.user[1:] == rows.user[:-1]
    assert (np.diff(rows.time)[same] > 0).all()


def test_a_world_is_generated_in_partitions(configured):
    config = configured(
        'name = "w"\n[data]\nformat = "world"\n'
        "[data.world]\nusers = 40\nitems = 60\nartists = 9\ndays = 5\nusers_per_partition = 15\n"
        "[events.types]\nimpression = {weight = 0.0, seen = false}\n"
        "listen = {}\nskip = {}\nlike = {}\nsave = {}\nshare = {}\n"
    )
    counts = job.prepare(config, quiet)
    layout = Layout(config.state)
    assert (counts["users"], counts["items"], counts["duplicates"]) == (40, 60, 0)
    assert any(layout.truth.iterdir()) and counts["events"] == len(log(config))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("u1,a,100,view\nu1,b,200,view\n", "expected at least two users, got 1: there is no other user to learn from"),
        ("u1,a,100,view\nu2,a,200,view\n", "expected at least two items, got 1: there is nothing to rank"),
        ("u1,a,100,view\nu2,b,100,view\n", "all 2 events have the same time"),
    ],
)
def test_data_without_a_choice_or_an_order_is_refused(tmp_path, configured, rows, said):
    (tmp_path / "events").mkdir()
    (tmp_path / "events/1.csv").write_text("user_id,item_id,time,type\n" + rows)
    with pytest.raises(DataError, match=said):
        job.prepare(configured(SHOP.replace('[data.tables.items]\npath = "items.csv"\n', "")), quiet)
