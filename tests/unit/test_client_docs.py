"""The Python examples of docs/clients.md run as they are, and print what the page says."""

import re
from itertools import pairwise
from pathlib import Path

import jwt
import pytest

from doc_blocks import list_blocks
from handsell.client.endpoints import Endpoints
from listening_shop import run_shop
from serving_world import write_world

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "clients.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with run_shop(write_world(tmp_path_factory.mktemp("shop")), keys="required") as shop:
        yield shop


def test_the_python_examples_run_and_print_what_the_page_says(shop, monkeypatch, capsys):
    monkeypatch.setenv("HANDSELL_API_KEY", shop.create_key("recommend", "events")[1])
    names = {"__name__": "example", "KEY_ID": "k1", "SIGNING_SECRET": "s" * 43}
    blocks = [*list_blocks(PAGE), ("end", "")]
    outputs = 0
    for (language, text), (after, expected) in pairwise(blocks):
        if language != "python":
            continue
        exec(compile(text.replace("http://127.0.0.1:8000", shop.url), str(PAGE), "exec"), names)
        printed = capsys.readouterr().out
        assert printed == (expected if after == "text" else "")
        outputs += after == "text"
    assert outputs == 2
    events = shop.list_events()
    assert [(event["type"], event["position"]) for event in events] == [("like", 2), ("impression", None)]
    assert events[0]["recommendation_id"] == names["slate"]["recommendation_id"] and names["items"]
    claims = jwt.decode(names["answer_token"]("u1"), "s" * 43, ["HS256"])
    assert claims["sub"] == "u1"


def test_every_method_is_on_the_page():
    written = TEXT.replace("the same for users", "`put_user`, `patch_user`, `get_user`, `delete_user`, `put_users`")
    assert not [name for name in vars(Endpoints) if name[0] != "_" and f"`{name}`" not in written]


def test_every_attribute_and_property_of_the_style_is_on_the_page():
    source = "".join(path.read_text() for path in (ROOT / "clients" / "web" / "src").glob("*.ts"))
    lists = [re.search(rf"{name} = \[(.*?)\]", source, re.DOTALL)[1] for name in ("ASKED_BY", "SHOWN_BY")]
    asked, shown = (re.findall(r'"([\w-]+)"', one) for one in lists)
    properties = sorted(set(re.findall(r"--handsell-[\w-]+", source)))
    assert len(asked) > 5 and len(shown) > 5 and len(properties) > 5
    assert not [name for name in (*asked, *shown, "view-type", "click-type", *properties) if f"`{name}`" not in TEXT]
