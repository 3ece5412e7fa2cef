"""An answer that is written from parts of an earlier one has the JSON of its model."""

import json

import pytest

from handsell.serving.http import answers as a

TRAPS = ['a","next_cursor":"x', '"next_cursor":null', "next_cursor", "é\\\u2028"]


def build(number: int, cursor: str | None, cold: bool) -> a.RecommendationsAnswer:
    items = [
        a.RecommendedItem(
            item_id=one, rank=rank, score=0.5, sources=["als"], reason=a.Reason(code="liked", item_id=one)
        )
        for rank, one in enumerate(TRAPS, start=1)
    ]
    return a.RecommendationsAnswer(
        recommendation_id=f"{number:032x}", surface='ho"me', cold_start=cold, items=items, relaxed=[TRAPS[0]],
        next_cursor=cursor, degraded=[], release=a.SlateStamp(bundle="b", snapshot=1, catalog=2, rules=None),
    )  # fmt: skip


@pytest.mark.parametrize("first", [None, "abc-_"])
@pytest.mark.parametrize("cold", [True, False])
def test_an_answer_from_parts_has_the_json_of_its_model(first, cold):
    written: dict = {}
    for number, cursor in enumerate([first, None, "Zx-_9", first], start=7):
        for is_cold in (cold, not cold):
            answer, expected = build(number, cursor, is_cold), build(number, cursor, is_cold).to_json()
            answer.write_from(written)
            assert answer.to_json() == expected
            assert json.loads(expected)["recommendation_id"] == f"{number:032x}"


def test_parts_are_written_once(monkeypatch):
    written: dict = {}
    build(1, "c", True).write_from(written)
    monkeypatch.setattr(a.Answer, "to_json", lambda _: pytest.fail("the model was written again"))
    later = build(2, "d", True)
    later.write_from(written)
    assert json.loads(later.to_json())["next_cursor"] == "d"
