"""The audit log: who changed what over HTTP and by commands, what is not recorded, and how it is read."""

import json
import logging
from contextlib import closing, nullcontext
from dataclasses import replace

import pytest
from test_access import guarded
from typer.testing import CliRunner

from handsell.cli import app
from handsell.core.logs.id_hashing import make_id_hash
from handsell.core.paths import Layout
from handsell.events.store.interface import EventStoreError
from handsell.events.store.opening import open_reader, open_writer
from handsell.jobs import pipeline
from handsell.maintenance.trimming import find_old_audit, trim_table
from serving_service import start_service
from serving_world import write_world

ITEM = {"title": "A title"}


@pytest.fixture
def world(tmp_path):
    made = write_world(tmp_path)
    patient = made.config.serving.model_copy(update={"deadline_ms": 20_000})
    return replace(made, config=made.config.model_copy(update={"serving": patient}))


def read(world):
    with closing(open_reader(world.config)) as reader:
        return reader.read_audit()


def hash_user(world, user_id):
    return "user " + make_id_hash("hashed", Layout(world.config.state).log_key)(user_id)


async def test_a_change_names_key_object_status_and_trace(world):
    async with guarded(world) as shop:
        key, text = shop.create("catalog", "recommend")
        trace = {"traceparent": f"00-{'5' * 32}-{'7' * 16}-00"}
        assert (await shop.ask(text, "PUT", "/v1/items/new/1", ITEM, **trace)).status_code == 201
        assert (await shop.ask(text, "POST", "/v1/items", {"items": [ITEM | {"item_id": "a"}]})).status_code == 200
        assert (await shop.ask(text, "PUT", "/v1/users/anna@example.com", {})).status_code == 201
        assert (await shop.ask(text, "PATCH", "/v1/items?item_id=nothing", ITEM)).status_code == 404
        assert (await shop.ask(text)).status_code == 200  # reads are not recorded
        entries = read(world)
    assert {(entry.key_id, entry.caller) for entry in entries} == {(key.key_id, "shop")}
    assert [(entry.action, entry.object, entry.status) for entry in entries] == [
        ("PUT /v1/items/{item_id}", "item new/1", "201"),
        ("POST /v1/items", "1 items", "200"),
        ("PUT /v1/users/{user_id}", hash_user(world, "anna@example.com"), "201"),
        ("PATCH /v1/items", "item nothing", "404"),
    ]
    assert entries[0].detail == f"trace {'5' * 32}" and entries[1].detail != entries[0].detail


async def test_refused_changes_of_a_known_key_are_recorded_and_unknown_callers_are_not(world):
    async with guarded(world) as shop:
        _, text = shop.create("catalog")
        assert (await shop.ask(text, "DELETE", "/v1/users/u1?erase=true")).status_code == 403
        assert (await shop.ask("hs_aaaaaaaaaa_secret", "DELETE", "/v1/items/i1")).status_code == 401
        (entry,) = read(world)
    assert (entry.action, entry.status) == ("DELETE /v1/users/{user_id} (erase)", "403")
    assert entry.object == hash_user(world, "u1")


async def test_without_keys_erasures_alone_are_recorded(world):
    async with start_service(world, config=world.config) as (client, _):
        assert (await client.put("/v1/items/new", json=ITEM)).status_code == 201
        assert (await client.delete("/v1/users/u1?erase=true")).status_code < 300
        (entry,) = read(world)
    assert (entry.key_id, entry.caller, entry.object) == (None, "anonymous", hash_user(world, "u1"))


async def test_an_entry_that_cannot_be_stored_is_in_the_log(world, monkeypatch, caplog):
    async with guarded(world) as shop:
        _, text = shop.create("catalog")

        async def fail(_):
            raise EventStoreError("away")

        monkeypatch.setattr(shop.service._events, "append_audit", fail)
        monkeypatch.setattr(logging.getLogger("handsell"), "propagate", True)
        assert (await shop.ask(text, "PUT", "/v1/items/new", ITEM)).status_code == 201
        assert read(world) == []
    (record,) = [record for record in caplog.records if "audit" in record.getMessage()]
    assert record.fields["action"] == "PUT /v1/items/{item_id}" and record.fields["object"] == "item new"


def test_commands_are_recorded_and_listed(world, monkeypatch):
    monkeypatch.setenv("HANDSELL_HOME", str(world.config.state.parent))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run, config = CliRunner().invoke, str(world.config.source)
    made = run(app, ["keys", "create", config, "web shop", "--scope", "recommend"])
    secret = made.stdout.split()[-1]
    assert secret.startswith("hs_")
    assert run(app, ["bundles", "promote", config, world.bundle]).exit_code == 0
    assert run(app, ["bundles", "promote", config, "nothing"]).exit_code == 1
    listed = run(app, ["audit", config, "--json"])
    entries = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [(entry["action"], entry["status"]) for entry in entries] == [
        ("keys create", "done"), ("bundles promote", "done"), ("bundles promote", "failed"),
    ]  # fmt: skip
    assert "(web shop)" in entries[0]["object"] and entries[1]["object"] == f"bundle {world.bundle}"
    assert entries[2]["detail"] == "BundleError" and all("@" in entry["caller"] for entry in entries)
    assert secret.split("_", 2)[2] not in listed.stdout
    table = run(app, ["audit", config, "--since", "1h"])
    assert "keys create" in table.stdout and table.exit_code == 0
    assert "keys create" not in run(app, ["audit", config, "--since", "0s"]).stdout


def test_a_training_is_recorded_with_its_whole_outcome(world, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    outcome = f"b1 is live; {'the slates are not significantly different from EASE, ' * 9}recent."
    for name, value in {
        "STEPS": {}, "open_cluster": lambda config: nullcontext(), "count_steps": lambda config: 0,
        "train": lambda config, promote, progress: outcome, "clean": lambda config: "",
    }.items():  # fmt: skip
        monkeypatch.setattr(pipeline, name, value)
    pipeline.run_pipeline(world.config)
    (entry,) = read(world)
    assert (entry.action, entry.object) == ("train", f"deployment {world.config.name}") and entry.detail == outcome


def test_the_hash_of_an_id_is_the_one_in_the_audit_log(world, monkeypatch):
    monkeypatch.setenv("HANDSELL_HOME", str(world.config.state.parent))
    shown = CliRunner().invoke(app, ["hash", str(world.config.source), "u1", "u2"]).stdout.split()
    assert [f"user {one}" for one in shown] == [hash_user(world, "u1"), hash_user(world, "u2")]


def test_old_entries_are_trimmed(world):
    from handsell.jobs.audited_command import describe_command

    day_us = 86_400_000_000
    with closing(open_writer(world.config)) as log:
        now = describe_command("a", "b", "done")
        for days in (400, 370, 10, 0):
            log.append_audit([type(now)(now.time_us - days * day_us, None, "x", str(days), "", "done")]).result()
        with closing(open_reader(world.config)) as reader:
            old = find_old_audit(world.config, reader)
        assert trim_table(lambda method, *args: getattr(log, method)(*args).result(), "audit", old, old) == 2
    assert [entry.action for entry in read(world)] == ["10", "0"]
