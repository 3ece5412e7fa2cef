"""Secrets are in no output: not in messages of commands, problem answers, log lines, nor files of the state folder."""

import io
import json
import logging
import traceback

import httpx
import pytest
from typer.testing import CliRunner

from handsell.cli import app
from handsell.config import load_config
from handsell.core.errors import HandsellError
from handsell.core.logs.log_lines import log_as_json
from handsell.core.logs.passwords import hide_passwords
from handsell.events.store.opening import STORE_VARIABLE, open_writer
from handsell.features.repository import explain_mismatch, write_feast_file
from handsell.jobs.progress import report_error
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.http.api import build_api
from open_sockets import free_ports
from postgresql_server import PostgresServer, find_programs
from serving_service import build_service
from serving_world import write_world

SECRET = "pa55-w0rd-Tr0ub4dor"
REDIS = "127.0.0.1:{port},password=" + SECRET
COMMANDS = (
    ["doctor"], ["keys", "list"], ["keys", "create", "--scope", "admin", "shop"], ["audit"], ["clean"], ["compact"],
    ["bundles", "list"], ["erase", "u1"], ["backup", "folder"], ["apply"], ["recommend", "u1"],
)  # fmt: skip


@pytest.fixture(scope="module")
def server():
    started = PostgresServer(find_programs(), "fsync=off")
    try:
        started.start()
        yield started
    finally:
        started.remove()


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("HANDSELL_LOG_KEY", SECRET)
    monkeypatch.setenv("HANDSELL_API_KEY", f"hs_aaaaaaaaaa_{SECRET}")
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / ".handsell"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return write_world(tmp_path, free_ports(1)[0])


def run(world, command, tmp_path, capfd) -> str:
    """Return everything that a command writes, and its traceback."""
    place = [str(tmp_path / "backup") if each == "folder" else each for each in command[1:]]
    group = 2 if command[0] in ("keys", "bundles") else 1
    arguments = [*command[:group], str(world.config.source), *place[group - 1 :]]
    done = CliRunner().invoke(app, arguments)
    found = done.output + done.stderr
    if done.exception is not None:
        found += "".join(traceback.format_exception(done.exception))
    written = capfd.readouterr()
    return found + written.out + written.err


def find_in_files(folder, text=SECRET):
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_commands_do_not_show_the_passwords_of_stores_that_are_away(world, tmp_path, monkeypatch, capfd):
    store, redis = free_ports(2)
    monkeypatch.setenv(STORE_VARIABLE, f"postgresql://shop:{SECRET}@127.0.0.1:{store}/shop")
    monkeypatch.setenv("HANDSELL_ONLINE_STORE", REDIS.format(port=redis))
    texts = {" ".join(command): run(world, command, tmp_path, capfd) for command in COMMANDS}
    assert {name for name, text in texts.items() if SECRET in text} == set()
    refused = [name for name, text in texts.items() if f"127.0.0.1:{store}" in text]
    assert len(refused) >= 5, texts  # their messages name the address
    assert find_in_files(tmp_path) == []


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://shop:{SECRET}@@127.0.0.1/shop", f"postgres://shop:{SECRET}@127.0.0.1/shop",
        f"mysql://shop:{SECRET}@127.0.0.1/shop", f"postgresql://shop:{SECRET}/@127.0.0.1/shop",
    ],
)  # fmt: skip
def test_an_address_that_is_wrong_is_not_quoted(world, tmp_path, monkeypatch, capfd, address):
    monkeypatch.setenv(STORE_VARIABLE, address)
    text = run(world, ["keys", "list"], tmp_path, capfd)
    assert SECRET not in text and "Error" in text


def test_a_configuration_that_is_wrong_is_quoted_without_passwords(world):
    source = world.config.source
    source.write_text(source.read_text() + f'[event]\nstore = "postgresql://shop:{SECRET}@127.0.0.1/shop"\n')
    with pytest.raises(HandsellError) as refused:
        load_config(source)
    assert SECRET not in str(refused.value) and "shop" in str(refused.value)


def test_two_configurations_of_feast_are_compared_without_passwords(world, tmp_path, monkeypatch):
    monkeypatch.setenv("HANDSELL_ONLINE_STORE", REDIS.format(port=6_379))
    file = write_feast_file(world.config)
    monkeypatch.setenv("HANDSELL_ONLINE_STORE", REDIS.format(port=6_380))
    other = tmp_path / "feature_store.yaml"
    other.write_text(file.read_text().replace("${HANDSELL_ONLINE_STORE}", REDIS.format(port=6_379)))
    text = explain_mismatch(world.config, tmp_path, other)
    assert text is not None and "127.0.0.1:6380" in text and "password=…" in text and SECRET not in text


async def test_answers_and_log_lines_have_no_secret(server, world, tmp_path, monkeypatch):
    address = server.create_database().replace("postgres@", f"postgres:{SECRET}@")
    monkeypatch.setenv(STORE_VARIABLE, address)
    own = logging.getLogger("handsell")
    before = own.handlers[:], own.level, own.propagate
    log_as_json("Gateway", str)
    written = own.handlers[-1].stream = io.StringIO()
    answers = []
    try:
        service = build_service(world, LocalSink(open_writer(world.config)))
        transport = httpx.ASGITransport(build_api(service), raise_app_exceptions=False)
        event = {"type": "like", "user_id": "u1", "item_id": "i1"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://shop", headers={"X-API-Key": SECRET, "Authorization": SECRET}
        ) as client:
            for is_away in (False, True):
                if is_away:
                    server.stop("immediate")
                answers += [
                    await client.post("/v1/events", json={"events": [event]}),
                    await client.get("/v1/users/u1/recommendations"),
                    await client.get("/v1/users/u1/blocks"),
                    await client.put("/v1/items/new", json={"title": "x"}),
                    await client.get("/readyz"),
                    await client.post("/v1/recommendations", content=b"{", headers={"content-type": "text/x"}),
                ]
        try:
            raise ConnectionError(f"cannot reach {address}")
        except ConnectionError:
            own.exception("as a library may say it: %s", address)
        await service.close()
    finally:
        own.handlers[:], own.level, own.propagate = before
    assert {answer.status_code for answer in answers} >= {200, 202, 503, 415}
    assert SECRET not in "".join(f"{answer.headers} {answer.text}" for answer in answers)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert SECRET not in written.getvalue()
    (quoted,) = [line for line in lines if line["message"].startswith("as a library may say it: postgresql://…@127")]
    assert "ConnectionError: cannot reach postgresql://…@127" in quoted["exception"]
    assert any("event log" in line["message"] for line in lines)
    assert find_in_files(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at postgresql://u:p@w:x/y@host:5432/db now", "at postgresql://…@host:5432/db now"),
        ("redis://:pw@h:1 and s3://bucket/key", "redis://…@h:1 and s3://bucket/key"),
        ("h:6379,password=pw,ssl=true", "h:6379,password=…,ssl=true"),
        ("Token: abc, user anna@example.com", "Token: …, user anna@example.com"),
        ("nothing here", "nothing here"),
    ],
)
def test_what_is_hidden(text, shown, capsys):
    assert hide_passwords(text) == shown
    report_error(text)
    assert capsys.readouterr().err.strip().endswith(shown)
