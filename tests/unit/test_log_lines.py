"""Log lines: one JSON format, joined by recommendation id and trace, without ids in plain text."""

import asyncio
import io
import json
import logging
import stat
import sys

import pytest
from ray.serve._private.logging_utils import StreamToLogger

from handsell.access.caller import Caller
from handsell.core.errors import ConfigError
from handsell.core.logs.id_hashing import hash_id, make_id_hash, read_key
from handsell.core.logs.log_lines import JsonLines, log_as_json, set_named_ids
from handsell.core.logs.request_trace import RequestTrace, set_traces
from handsell.core.paths import Layout
from handsell.serving.http.middleware import describe_request
from serving_service import FailingStages, start_service
from serving_world import write_world

KEY = bytes(range(32))
log = logging.getLogger("handsell.test")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture(autouse=True)
def no_request():
    set_traces(())
    set_named_ids(None)
    yield
    set_traces(())
    set_named_ids(None)


@pytest.fixture
def written():
    """The parsed lines of handsell's records, as a gateway writes them."""
    own = logging.getLogger("handsell")
    before = own.handlers[:], own.level, own.propagate
    log_as_json("Gateway", lambda id_: hash_id(id_, KEY))
    stream = io.StringIO()
    own.handlers[-1].stream = stream

    def lines():
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield lines
    own.handlers[:], own.level, own.propagate = before


def test_a_line_says_who_writes_what_about_which_request(written):
    set_traces([RequestTrace("r1", "a" * 32, "")])
    log.warning("degraded %s", "answer", extra={"fields": {"degraded": ["ranking"]}})
    (line,) = written()
    assert line.pop("time")
    assert line == {
        "level": "warning", "process": "Gateway", "logger": "handsell.test", "message": "degraded answer",
        "recommendation_id": "r1", "trace_id": "a" * 32, "degraded": ["ranking"],
    }  # fmt: skip


def test_a_line_of_a_batch_names_all_its_requests_and_one_outside_of_requests_none(written):
    log.info("alone")
    set_traces([RequestTrace("r1", "a" * 32), RequestTrace("r2", "b" * 32)])
    log.info("both")
    alone, both = written()
    assert "recommendation_id" not in alone and "trace_id" not in alone
    assert both["recommendation_id"] == ["r1", "r2"] and both["trace_id"] == ["a" * 32, "b" * 32]


def test_ids_are_hashed_in_fields_messages_and_tracebacks(written):
    set_named_ids(lambda: ["anna@example.com", "u.1"])
    try:
        raise KeyError("anna@example.com")
    except KeyError:
        log.exception("row of u.1 is missing, u.12 and xu.1 are others", extra={"fields": {"user_id": "u.1"}})
    (line,) = written()
    hashed = hash_id("u.1", KEY)
    assert line["user_id"] == hashed and line["message"] == f"row of {hashed} is missing, u.12 and xu.1 are others"
    assert "anna" not in json.dumps(line) and hash_id("anna@example.com", KEY) in line["exception"]


def test_a_list_of_ids_is_hashed_and_other_fields_stay(written):
    log.info("x", extra={"fields": {"item_ids": ["i1", "i2"], "route": "/v1/rank", "user_id": None}})
    (line,) = written()
    assert line["item_ids"] == [hash_id("i1", KEY), hash_id("i2", KEY)]
    assert line["route"] == "/v1/rank" and line["user_id"] is None


def test_plain_ids_stay_as_they_are(tmp_path):
    formatter = JsonLines("Gateway", make_id_hash("plain", tmp_path / "log.key"))
    set_named_ids(lambda: ["u1"])
    record = logging.LogRecord("handsell", logging.INFO, "", 1, "row of u1", None, None)
    assert json.loads(formatter.format(record))["message"] == "row of u1"
    assert not (tmp_path / "log.key").exists()


def test_the_key_is_made_once_and_readable_by_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("HANDSELL_LOG_KEY", raising=False)
    file = tmp_path / "run" / "log.key"
    key = read_key(file)
    assert len(key) == 32 and read_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and [p.name for p in file.parent.iterdir()] == ["log.key"]
    assert hash_id("u1", key) != hash_id("u1", KEY)
    monkeypatch.setenv("HANDSELL_LOG_KEY", "0123456789abcdef")
    assert read_key(file) == read_key(tmp_path / "elsewhere") != key
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_that_cannot_be_used_is_an_error_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDSELL_LOG_KEY", "short")
    with pytest.raises(ConfigError, match=r"at least 16 characters, got 5.*openssl"):
        read_key(tmp_path / "log.key")
    monkeypatch.delenv("HANDSELL_LOG_KEY")
    (tmp_path / "log.key").write_text("not hexadecimal")
    with pytest.raises(ConfigError, match=r"log\.key is damaged .* set HANDSELL_LOG_KEY"):
        read_key(tmp_path / "log.key")


def test_a_process_that_can_keep_no_key_has_one_of_its_own(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("HANDSELL_LOG_KEY", raising=False)
    monkeypatch.setattr(logging.getLogger("handsell"), "propagate", True)
    (tmp_path / "run").write_text("a file where the folder should be")
    key = read_key(tmp_path / "run" / "log.key")
    assert len(key) == 32 and read_key(tmp_path / "run" / "log.key") == key
    assert "set HANDSELL_LOG_KEY" in caplog.text


async def test_lines_of_served_requests_are_joined_and_name_nobody(world, written):
    people = [f"anna{n}@example.com" for n in range(6)]
    stages = FailingStages(world, "ranking")
    async with start_service(world, stages=stages) as (client, service):
        given = f"00-{'5' * 32}-{'7' * 16}-01"
        answer = await client.post("/v1/recommendations", json={"user_id": people[0]}, headers={"traceparent": given})
        await asyncio.gather(*(client.get(f"/v1/users/{user_id}/recommendations") for user_id in people[1:]))

        async def fail(body, *_):
            raise KeyError(body.user_id, getattr(body, "item_ids", ()))

        service.recommend = service.rank = fail
        assert (await client.get(f"/v1/users/{people[2]}/recommendations")).status_code == 500
        body = {"user_id": people[2], "item_ids": ["secret-item"]}
        assert (await client.post("/v1/rank", json=body)).status_code == 500
    lines = written()
    name = answer.json()["recommendation_id"]
    of_first = [line for line in lines if line.get("recommendation_id") == name]
    assert {line["message"] for line in of_first} == {"ranking failed; answering without it", "degraded answer"}
    assert {line["trace_id"] for line in of_first} == {"5" * 32}
    failed = [line for line in lines if line["message"] == "unexpected error"]
    assert len(failed) == 2 and all(line["trace_id"] != "5" * 32 for line in failed)
    text = json.dumps(lines)
    assert "@example" not in text and "secret-item" not in text and "id-" in text


async def test_a_line_for_each_request_where_the_config_asks_for_it(world, written):
    changed = {"logging": world.config.logging.model_copy(update={"requests": True})}
    async with start_service(world, config=world.config.model_copy(update=changed)) as (client, _):
        answer = await client.get("/v1/users/u1/recommendations")
        await client.get("/v1/users/u1/recommendations?count=no")
    first, second = (line for line in written() if line["message"] == "request")
    assert first["route"] == "/v1/users/{user_id}/recommendations" and first["status"] == 200 and first["ms"] > 0
    assert first["recommendation_id"] == answer.json()["recommendation_id"]
    assert second["status"] == 422 and second["trace_id"] != first["trace_id"]


def test_the_key_lies_beside_the_token_of_the_cluster(world):
    assert Layout(world.config.state).log_key.parent == world.config.state / "run"


def test_the_line_of_a_request_names_the_key_and_no_path():
    scope = {"method": "GET", "path": "/v1/users/anna", "state": {"caller": Caller("k1", "shop", frozenset())}}
    line = describe_request(scope, "/v1/users/{user_id}", 200, 0.0123)
    assert line == {"method": "GET", "route": "/v1/users/{user_id}", "status": 200, "ms": 12.3, "key_id": "k1"}
    assert "key_id" not in describe_request(scope | {"state": {"caller": Caller.anonymous()}}, "/", 200, 0.1)


def test_lines_reach_stderr_where_serve_has_replaced_it(monkeypatch, capfd):
    own = logging.getLogger("handsell")
    before = own.handlers[:], own.level, own.propagate
    monkeypatch.setattr(sys, "stderr", StreamToLogger(logging.getLogger("nobody"), logging.INFO, sys.stderr))
    try:
        log_as_json("Gateway", str)
        log.warning("a bundle is refused")
    finally:
        own.handlers[:], own.level, own.propagate = before
    assert "a bundle is refused" in capfd.readouterr().err
