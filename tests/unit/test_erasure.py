"""A person is removed from a whole deployment, also after a crash at any step, and the search proves it."""

import json
import os
import sqlite3
import time
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from handsell.catalog.vocabulary import Vocabulary
from handsell.cli.app import app
from handsell.core.paths import Layout
from handsell.data.interaction_parts import write_order
from handsell.data.key_runs import save_keys
from handsell.data.numbering import KEYED, SETTLED
from handsell.events.compaction import compact
from handsell.events.store.interface import CatalogChange
from handsell.events.store.opening import open_reader, open_writer
from handsell.jobs.erasure import erase as erasure
from handsell.jobs.erasure.erase import STEPS, resume
from handsell.jobs.erasure.person import Person
from handsell.jobs.erasure.search import search
from serving_world import TOML

PERSON, OTHERS = "customer-7", ("customer-70", "u1", "u10")
USERS = ("customer-70", "customer-7", "u1", "u10")
NOW = 1_790_000_000_000_000


@pytest.fixture
def config(tmp_path, monkeypatch):
    return build_deployment(tmp_path, monkeypatch)


def build_deployment(tmp_path, monkeypatch):
    from handsell.config import load_config

    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(STEPS, "online features", lambda *_: 0)  # opening Feast takes seconds; the file is cleaned
    path = tmp_path / "shop.toml"
    path.write_text(TOML.replace("PORT", "18000"))
    config = load_config(path)
    fill(config)
    return config


def fill(config):
    """Write something of every user to each place of a deployment."""
    layout = Layout(config.state)
    fill_store(config)
    fill_data(layout)
    (layout.features / "user_activity").mkdir(parents=True)
    pq.write_table(
        pa.table({"user_id": USERS * 2, "likes": range(8)}), layout.features / "user_activity" / "part-0.parquet"
    )
    layout.feast.mkdir()
    with closing(sqlite3.connect(layout.feast / "online.db")) as database:
        database.execute("CREATE TABLE shop_user_activity (entity_key BLOB, feature_name TEXT, value BLOB)")
        for user in USERS:
            key = b"user_id" + len(user).to_bytes(4, "little") + user.encode()
            database.execute("INSERT INTO shop_user_activity VALUES (?, 'likes', x'00')", (key,))
        database.commit()
    layout.logs.mkdir()
    lines = [json.dumps({"user_id": user, "message": f"GET /v1/users/{user}/recommendations"}) for user in USERS]
    (layout.logs / "ray.log").write_text("\n".join(lines) + "\n")
    run = layout.runs / "run1"
    (run / "windows").mkdir(parents=True)
    pq.write_table(pa.table({"user": [0, 1]}), run / "windows" / "test.parquet")
    (run / "report.json").write_text("{}")
    old = time.time() - 3_600
    os.utime(run / "windows" / "test.parquet", (old, old))
    slates = config.state / "batch" / "email"
    slates.mkdir(parents=True)
    pq.write_table(pa.table({"user_id": USERS, "item_ids": [["i1"]] * 4}), slates / "part-0.parquet")


def fill_store(config):
    log = open_writer(config)
    users = (*USERS, "anonymous:v1")
    log.append(
        [{"user_id": u, "item_id": f"i{n}", "type": "like", "time": NOW + n} for n, u in enumerate(users)]
    ).result()
    shown = '{"item_id": ["i1"], "score": [0.5], "propensity": [1.0], "sources": [["als"]]}'
    log.append_slates(
        [
            {"recommendation_id": f"r{n}", "gateway": "g", "sequence": n, "time": NOW, "user_id": u, "surface": "home",
             "bundle": "b", "items": shown}
            for n, u in enumerate(users)
        ]
    ).result()  # fmt: skip
    log.append_changes([CatalogChange("user", u, "put", {"plan": "pro"}, NOW) for u in USERS]).result()
    log.append_changes([CatalogChange("item", PERSON, "put", {"title": "an item of this name"}, NOW)]).result()
    log.put_blocks(PERSON, ["c1"], []).result()
    log.merge_identity("anonymous:v1", PERSON, NOW).result()
    log.close()
    compact(config, lambda _: None)


def fill_data(layout):
    layout.items.parent.mkdir(parents=True)
    Vocabulary.of(USERS).save(layout.catalog / "users")
    Vocabulary.of(["i0", "i1", PERSON]).save(layout.catalog / "items")
    pq.write_table(pa.table({"user_id": USERS, "plan": ["pro"] * 4, "age": [1.0, 2.0, 3.0, 4.0]}), layout.users)
    pq.write_table(pa.table({"item_id": ["i0", "i1", PERSON], "tags": [[PERSON]] * 3}), layout.items)
    columns = {
        "user": [0, 1, 1, 2, 3], "item": [0, 0, 1, 1, 1], "type": [1] * 5, "time": range(5), "weight": [1.0] * 5,
        "key": [100, 101, 102, 103, 104], "alias": [None, 201, None, None, None], "part": [0] * 5, "place": range(5),
        "logged": range(5),
    }  # fmt: skip
    layout.interactions.mkdir(parents=True)
    for schema, path in ((SETTLED, "part-00000.parquet"), (KEYED, "new/part-00000-000002.parquet")):
        (layout.interactions / path).parent.mkdir(exist_ok=True)
        arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(5, f.type) for f in schema]
        pq.write_table(pa.table(arrays, schema=schema), layout.interactions / path)
    write_order(layout.interactions, [0])
    save_keys(layout.event_keys, 0, np.array([100, 101, 102, 103, 104, 201]))


def find(config, *ids):
    return {place.name: place.found for place in search(config, Person(ids)) if place.counts and place.found}


def record(config, user_id=PERSON):
    log = open_writer(config)
    log.erase_user(user_id, NOW + 100).result()
    log.close()


def read_pending(config):
    with closing(open_reader(config)) as reader:
        return {one.user_id for one in reader.read_erasures()}


def check_others(config):
    """Nothing of the other people is damaged."""
    layout = Layout(config.state)
    vocabulary = Vocabulary.load(layout.catalog / "users")
    assert vocabulary.ids(np.arange(4)) == ["customer-70", "(erased user 1)", "u1", "u10"]
    assert vocabulary.number([*OTHERS, PERSON]).tolist() == [0, 2, 3, -1]
    assert pq.read_table(layout.users).to_pylist() == [
        {"user_id": user if user != PERSON else "(erased user 1)", "plan": None if user == PERSON else "pro",
         "age": None if user == PERSON else float(n + 1)}
        for n, user in enumerate(USERS)
    ]  # fmt: skip
    for path in layout.interactions.rglob("*.parquet"):
        assert pq.read_table(path)["user"].to_pylist() == [0, 2, 3]
    assert np.load(layout.event_keys / "part-00000.npy").tolist() == [100, 103, 104]
    assert pq.read_table(layout.features / "user_activity" / "part-0.parquet")["likes"].to_pylist() == [
        0,
        2,
        3,
        4,
        6,
        7,
    ]
    assert pq.read_table(layout.items)["item_id"].to_pylist()[2] == PERSON
    with closing(sqlite3.connect(layout.feast / "online.db")) as database:
        assert database.execute("SELECT count(*) FROM shop_user_activity").fetchone() == (3,)
    text = (layout.logs / "ray.log").read_text()
    assert PERSON + '"' not in text and all(f"/v1/users/{user}/recommendations" in text for user in OTHERS)
    assert [path.name for path in layout.runs.rglob("*") if path.is_file()] == ["report.json"]
    with closing(open_reader(config)) as reader:
        assert sorted(reader.scan(0)["user_id"]) == sorted(OTHERS)
        assert [c.id for c in reader.read_changes() if c.kind == "item"] == [PERSON]


def test_a_person_is_removed_everywhere(config, monkeypatch):
    monkeypatch.setitem(STEPS, "online features", erasure._remove_online)
    before = find(config, PERSON, "anonymous:v1")
    assert {"data", "catalog", "compacted", "features", "feast", "logs", "batch", "event store: events"} <= set(before)
    outcome = erasure.erase(config, PERSON, lambda _: None)
    assert outcome.finished, outcome.left
    assert read_pending(config) == {None}
    assert find(config, PERSON, "anonymous:v1") == {}
    check_others(config)
    assert resume(config, lambda _: None).people == 0


def test_a_person_is_removed_from_postgresql(tmp_path, monkeypatch, postgresql):
    monkeypatch.setenv("HANDSELL_EVENT_STORE", postgresql.create_database())
    config = build_deployment(tmp_path, monkeypatch)
    assert find(config, PERSON)["event store: blocks"] == 1
    outcome = erasure.erase(config, PERSON, lambda _: None)
    assert outcome.finished, outcome.left
    assert read_pending(config) == {None} and find(config, PERSON, "anonymous:v1") == {}
    check_others(config)


@pytest.mark.parametrize("step", [*STEPS, "search", "finish"])
@pytest.mark.parametrize("half", [False, True])
def test_a_run_that_is_killed_is_continued(config, monkeypatch, step, half):
    record(config)

    def crash(*arguments):
        if half and step in STEPS:
            real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step in STEPS:
            real = STEPS[step]
            patch.setitem(STEPS, step, crash)
        else:
            patch.setattr(erasure, {"search": "search", "finish": "_finish"}[step], crash)
        with pytest.raises(KeyboardInterrupt):
            resume(config, lambda _: None)
    assert PERSON in read_pending(config)
    assert resume(config, lambda _: None).finished
    assert read_pending(config) == {None} and find(config, PERSON, "anonymous:v1") == {}
    check_others(config)


@pytest.mark.parametrize("writes", range(1, 12))
def test_a_run_that_is_killed_while_it_replaces_a_file_is_continued(config, monkeypatch, writes):
    record(config)
    from pathlib import Path

    real, left = Path.replace, [writes]

    def replace_or_crash(self, target):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_or_crash)
        try:
            resume(config, lambda _: None)
        except KeyboardInterrupt:
            assert PERSON in read_pending(config)
    assert resume(config, lambda _: None).finished
    assert find(config, PERSON) == {}
    check_others(config)


LEAKS = {
    "parquet": lambda path: pq.write_table(pa.table({"note": [f"seen by {PERSON}"]}), path),
    "log": lambda path: path.write_text(f"user {PERSON} has gone\n"),
    "json": lambda path: path.write_text(json.dumps({"examples": [{"id": PERSON}]})),
    "npy": lambda path: np.save(path.with_suffix(".npy"), np.array([PERSON])),
    "gz": lambda path: path.write_bytes(__import__("gzip").compress(PERSON.encode())),
    "db": lambda path: write_database(path),
}


def write_database(path):
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (x TEXT)")
        database.execute("INSERT INTO t VALUES (?)", (PERSON,))
        database.commit()


@pytest.mark.parametrize("kind", LEAKS)
@pytest.mark.parametrize("folder", ["features", "logs", "bundles/b1", "elsewhere", "steps"])
def test_a_planted_leak_is_found(config, kind, folder):
    assert erasure.erase(config, PERSON, lambda _: None).finished
    place = config.state / folder
    place.mkdir(parents=True, exist_ok=True)
    LEAKS[kind](place / "planted")
    assert find(config, PERSON) == {folder.split("/")[0]: 1}
    assert find(config, "customer-70") != {} and "elsewhere" not in find(config, "customer-70")
    record(config)
    outcome = resume(config, lambda _: None)
    if folder.startswith("bundles") or kind == "npy":  # sealed: only another training replaces it
        assert not outcome.finished and str(place) in outcome.left[0]
        assert PERSON in read_pending(config)
    else:
        assert outcome.finished and find(config, PERSON) == {}


def test_the_command_erases_and_proves_it(config):
    run = CliRunner().invoke
    found = run(app, ["erase", str(config.source), "--verify", PERSON])
    assert found.exit_code == 1 and "event store: events" in found.output
    done = run(app, ["erase", str(config.source), PERSON])
    assert done.exit_code == 0, done.output
    clean = run(app, ["erase", str(config.source), "--verify", PERSON])
    assert clean.exit_code == 0, clean.output
    for place in ("event store: events", "catalog", "features", "feast", "logs", "source tables"):
        assert place in clean.output
    for other in OTHERS:
        assert run(app, ["erase", str(config.source), "--verify", other]).exit_code == 1
    assert run(app, ["erase", str(config.source)]).exit_code == 0


def test_a_training_that_may_be_running_is_not_touched(config):
    record(config)
    path = Layout(config.state).runs / "run1" / "windows" / "test.parquet"
    os.utime(path)
    outcome = resume(config, lambda _: None)
    assert path.is_file() and not outcome.finished and "run1" in outcome.left[0]
    assert PERSON in read_pending(config)


def test_short_and_numeric_ids_are_told_from_numbers(config):
    layout = Layout(config.state)
    (layout.logs / "x.log").write_text('{"user_id": "u1", "rank": 1} u1 u10 "u10"\nuser=u1\n')
    outcome = erasure.erase(config, "u1", lambda _: None)
    assert outcome.finished, outcome.left
    assert (layout.logs / "x.log").read_text() == '{"user_id": "**", "rank": 1} u1 u10 "u10"\nuser=**\n'
    vocabulary = Vocabulary.load(layout.catalog / "users")
    assert vocabulary.number(["u10", "customer-7", "customer-70", "u1"]).tolist() == [3, 1, 0, -1]


def test_an_unreadable_file_is_no_proof(config):
    record(config)
    (config.state / "features" / "broken.parquet").write_bytes(b"PAR1 broken")
    outcome = resume(config, lambda _: None)
    assert not outcome.finished and any("broken.parquet" in text for text in outcome.left)
