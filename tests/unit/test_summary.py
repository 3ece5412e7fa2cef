"""A report in the terminal: its content and order."""

import io

import pytest
from rich.console import Console
from test_report import with_served

from handsell.local.summary import print_report


@pytest.fixture
def report():
    entry = {"metrics": {"ndcg@10": 0.25, "recall@10": None, "gini@10": 0.75}, "interval": [0.125, 0.375]}
    return {
        "config": "shop", "requests": 1234, "users": 56, "models": {"als": entry, "content": entry},
        "summary": "The funnel wins.", "reasons": ["The first reason."],
    }  # fmt: skip


@pytest.fixture
def served_report(report):
    return with_served(report)


def printed(report: dict) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=200))
    return out.getvalue()


def row(text: str, name: str, after: str) -> list[str]:
    """Cells of the first table row of that name after a text."""
    line = next(line for line in text[text.index(after) :].splitlines() if line.startswith(f"│ {name} "))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_served_evaluation_is_printed_first(served_report):
    text = printed(served_report)
    sentence = served_report["served"]["sentence"]
    assert " ".join(text.split()).startswith(sentence)
    assert row(text, "funnel", "as served") == ["funnel", "0.5000", "0.5000–0.5000", "0.2500"]
    served = text[text.index("evaluated as served,") : text.index("by time since")]
    names = [line.split("│")[1].strip() for line in served.splitlines() if line.startswith("│")]
    assert names == ["funnel", "ranker", "blend", "als", "content", "baseline: EASE (best)", "baseline: popularity"]


def test_the_loss_by_time_away_and_the_choices_follow(served_report):
    text = printed(served_report)
    ranker = row(text, "ranker", "by time since the last event")
    assert ranker == ["ranker", "0.4375", "0.4375", "0.3281", "0.2188", "0.1094"]
    in_order = [
        "evaluated as served, 20 requests", "by time since the last event", "ranker -50.0% (0.4375 to 0.2188)",
        "picked the sources als, content and left out ease: their fused order reaches ndcg@10 0.3225",
        "picked strength 0.5 of re-ranking",
        "test window, 1,234 requests", served_report["summary"],
    ]  # fmt: skip
    places = [text.index(part) for part in in_order]
    assert places == sorted(places)


@pytest.mark.parametrize("sections", [{}, {"served": {}, "by_time_away": {}, "choices": {}}])
def test_a_report_without_these_sections_starts_with_the_test_window(report, sections):
    text = printed(report | sections)
    assert (
        text.splitlines()[0].strip() == "shop: test window, 1,234 requests of 56 users at the times when they returned"
    )
    assert "as served" not in text and "time since" not in text and "picked" not in text
    assert row(text, "als", "test window") == ["als", "0.2500", "0.1250–0.3750", *[""] * 5, "0.7500"]
    assert text.splitlines()[-2:] == ["The funnel wins.", "- The first reason."]
