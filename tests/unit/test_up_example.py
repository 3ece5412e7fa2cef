"""The last step of `make up` shows any content: ids and titles are data, not markup, paths or shell text."""

import io
import json
import shlex
from dataclasses import replace
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from handsell.catalog.vocabulary import Vocabulary
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout
from handsell.local.example import show_example
from handsell.testing.small_catalog import draw_snapshot
from played_service import played_service

UGLY = ("acme/1000?v=1#x", "[/b]", "[bold", "a b'c\"d", "$(id)", "..", "%2F", "ü\n\x1b[31m", "\\")
CONFIG = """
name = "shop"
[events.types]
view = {{ weight = 1.0 }}
[serving]
port = {port}
"""


def save_deployment(config, *, weights=(1.0,) * len(UGLY), user="u") -> None:
    """Write the parts of a deployment that the example reads: one event of one user with each item of UGLY."""
    layout, count = Layout(config.state), len(UGLY)
    metadata = pa.table(
        {
            "item_id": list(UGLY), "title": ["", None, *UGLY[2:]],
            "creators": [["[/red]", None], None, *[[]] * (count - 2)],
            "tags": [[None, "[/b]", None], None, *[["t"]] * (count - 2)],
        }
    )  # fmt: skip
    snapshot = draw_snapshot(np.random.default_rng(0), items=count)
    replace(snapshot, items=Vocabulary.of(UGLY), metadata=metadata).save(layout.snapshot)
    Vocabulary.of([user]).save(layout.catalog / "users")
    layout.interactions.mkdir(parents=True)
    columns = {
        "user": pa.array([0] * count, pa.int32()), "item": pa.array(range(count), pa.int32()),
        "type": pa.array([0] * count, pa.int16()), "time": pa.array(range(count), pa.int64()),
        "weight": pa.array(weights, pa.float32()),
    }  # fmt: skip
    pq.write_table(pa.table(columns).slice(0, 0), layout.interactions / "part-00000.parquet")
    pq.write_table(pa.table(columns), layout.interactions / "part-00001.parquet")


def slate(*item_ids: str) -> dict:
    reason = {"code": "similar", "item_id": UGLY[1]}
    return {"items": [{"item_id": i, "score": 0.5, "reason": reason} for i in item_ids], "degraded": []}


def show(configured, respond, **deployment) -> tuple[str, str, list]:
    """(summary, printed text, requests) of the example against a service that answers with `respond`."""
    with played_service(respond) as (port, received):
        config = configured(CONFIG.format(port=port))
        save_deployment(config, **deployment)
        out = io.StringIO()
        summary = show_example(config, Console(file=out, width=200))
    return summary, out.getvalue(), received


@pytest.mark.parametrize("user", UGLY)
def test_ids_and_titles_of_any_characters_are_shown(configured, user):
    summary, text, received = show(configured, lambda *_: (200, slate(*UGLY, "newer")), user=user)
    assert summary == f"10 items for user {user}"
    assert received == [("/v1/recommendations", {"user_id": user, "count": 10})]
    for shown in ("acme/1000?v=1#x", "[/b]", "[bold", "[/red]", "$(id)", "%2F", "newer", "similar: [/b]"):
        assert shown in text
    address = text.splitlines()[1].strip()  # first of all
    assert parse_qs(urlsplit(address).query) == {"user": [user]} and urlsplit(address).path == "/console/explore"
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("  curl ")]
    assert unquote(urlsplit(commands[0][1]).path.split("/")[3]) == user
    assert unquote(urlsplit(commands[1][1]).path.split("/")[3]) == UGLY[0]
    assert json.loads(commands[2][-1])["session"]["events"][0]["item_id"] == UGLY[0]


def test_without_a_console_there_is_no_address(configured, monkeypatch):
    monkeypatch.setitem(globals(), "CONFIG", CONFIG + "[console]\nenabled = false\n")
    _, text, _ = show(configured, lambda *_: (200, slate(UGLY[0])))
    assert "console" not in text


def test_an_empty_slate_ends_well(configured):
    summary, text, _ = show(configured, lambda *_: (200, slate()))
    assert summary == "0 items for user u" and "latest events" in text and "curl " in text


def test_a_log_without_positive_events_shows_a_new_user(configured):
    summary, _, received = show(configured, lambda *_: (200, slate(UGLY[0])), weights=[-1.0] * len(UGLY))
    assert summary == "1 items for user someone-new" and received[0][1]["user_id"] == "someone-new"


def test_a_refused_request_is_one_sentence(configured):
    with pytest.raises(HandsellError, match=r"expected status 200 from .* got 503"):
        show(configured, lambda *_: (503, {"code": "overloaded"}))


def test_a_proxy_in_the_environment_is_not_used(configured, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert show(configured, lambda *_: (200, slate(UGLY[0])))[0] == "1 items for user u"
