"""The story of one item, from the answer of an explanation."""

import pytest

from handsell.console.pages.explore import words
from handsell.console.pages.explore.story import build_story, weigh_arguments


def test_arguments_that_say_the_same_are_added_up():
    lines = weigh_arguments(
        [
            {"feature": "src_als_rank", "contribution": 0.5}, {"feature": "src_als_z", "contribution": 0.5},
            {"feature": "creator_affinity", "contribution": -0.25}, {"feature": "surface", "contribution": 0.001},
        ]
    )  # fmt: skip
    assert [(one.text, one.share, one.is_for) for one in lines] == [
        (words.SOURCES["als"], 1.0, True), (words.FEATURES["creator_affinity"], 0.25, False)
    ]  # fmt: skip
    assert weigh_arguments([]) == ()


def test_the_story_of_an_item_that_re_ranking_pushed_out():
    answer = {
        "outcome": "below_the_slate", "position": None, "count": 10, "release": {"catalog": 8000},
        "eligibility": {"eligible": True, "removed_by": []},
        "candidates": {
            "as_if_eligible": False, "rank": 12, "of": 1018, "passed_on": 1000,
            "sources": [
                {"source": "als", "outcome": "returned", "rank": 3, "k": 400},
                {"source": "popularity", "outcome": "beyond_k", "rank": 5760, "k": 200},
            ],
        },
        "ranking": {"as_if_candidate": False, "rank": 9, "of": 1000, "passed_on": 50, "score": 0.1,
                    "contributions": []},
        "reranking": {
            "before": 9, "place": 14, "moved_by": ["diversity"], "place_without": {"diversity": 9, "novelty": 14},
            "reason": {"code": "because_you_liked", "item_id": "i1"},
        },
    }  # fmt: skip
    story = build_story(answer, {"i1": "Sun"})
    assert story.outcome == "Not shown: at place 14, and the slate ends at 10." and not story.is_shown
    assert [step.sign for step in story.steps] == ["good", "good", "good", "good", "bad"]
    assert [step.left for step in story.steps] == [8000, 1018, 1000, 50, 10]
    last = story.steps[-1]
    assert last.sentence == "From place 9 to place 14. Because “Sun” was chosen."
    assert last.lines[0].note == "moves it down; without this it would be at place 9" and len(last.lines) == 1
    assert story.steps[1].lines[1].note == "only at place 5,760; the first 200 count"


@pytest.mark.parametrize(
    "removed, rank, words_of_it",
    [
        (["unavailable"], 3, "If it were available: place 1 of 504"),
        (["expired", "seen"], 3, "If no filter took it out: place 1 of 504"),
        (["unavailable"], None, "If it were available and it had been suggested: place 1 of 504"),
        ([], None, "If it had been suggested: place 1 of 504"),
        ([], 1_001, "If it were among the best suggestions: place 1 of 504"),
    ],
)
def test_the_story_of_an_item_that_is_no_candidate_says_under_which_condition_it_would_be_ranked(
    removed, rank, words_of_it
):
    answer = {
        "outcome": "filtered" if removed else "not_retrieved" if rank is None else "beyond_candidates",
        "position": None, "count": 10, "release": {"catalog": 8000},
        "eligibility": {"eligible": not removed, "removed_by": [{"filter": one, "detail": ""} for one in removed]},
        "candidates": {"as_if_eligible": bool(removed), "rank": rank, "of": 1018, "passed_on": 1000, "sources": []},
        "ranking": {"as_if_candidate": True, "rank": 1, "of": 504, "passed_on": 50, "score": 0.016,
                    "contributions": [{"feature": "surface", "contribution": 1.0}]},
        "reranking": None,
    }  # fmt: skip
    (told,) = (step.sentence for step in build_story(answer, {}).steps if step.title == "How well does it fit?")
    assert told.startswith(words_of_it)
    assert ", with an estimated chance of 1.6% that this person chooses it." in told
