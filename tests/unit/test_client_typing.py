"""A type checker knows the fields of the Python client's calls and answers, in a program that installs handsell."""

import pytest

mypy = pytest.importorskip("mypy.api")

PROGRAM = """
from handsell.client import AsyncClient, Client
shop = Client("http://shop")
score: float = shop.recommend(user_id="u1", count=3)["items"][0]["score"]
shop.recommend(user="u1")
shop.recommend()["item"]
shop.track(item_id="i1")
async def ask() -> int:
    return (await AsyncClient("http://shop").popular(count=1))["items"][0]["rank"]
"""


@pytest.mark.slow
def test_mistakes_are_found_and_nothing_else(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    found, _, _ = mypy.run(["--config-file=", f"--cache-dir={tmp_path}", "--hide-error-context", str(path)])
    lines = [line.partition(": error: ")[2] for line in found.splitlines() if ": error: " in line]
    assert [line.partition('"')[0] + line.split('"')[1] for line in lines] == [
        "Unexpected keyword argument user", "TypedDict RecommendationsAnswer", "Missing named argument type",
    ], found  # fmt: skip
