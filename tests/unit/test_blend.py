"""The blend: standardized scores against values computed by hand, candidates, weights, parts without results."""

from dataclasses import dataclass

import numpy as np
import pytest
from pydantic import ValidationError

from handsell.retrieval.config import RetrievalConfig
from handsell.retrieval.index.topk import gather, pad_rows, select_top
from handsell.retrieval.models.blend import Blend
from handsell.testing.planted_taste import allow_all, build_requests

ITEMS = 6


@dataclass(frozen=True)
class Fixed:
    """Scores of items that never change; NaN is unknown. Knows nothing of a request without history."""

    scores: tuple[float, ...]

    def retrieve(self, requests, k, eligible):
        table, rows = np.array(self.scores, np.float32), []
        for b, history in enumerate(requests.history.item):
            may = np.flatnonzero(eligible[b] & ~np.isnan(table) & (history >= 0).any())
            rows.append(select_top(may.astype(np.int32), table[may], k))
        return pad_rows(rows, k)

    def score(self, requests, items):
        table = np.array(self.scores, np.float32)
        return gather(table, items, ~np.isnan(table))


NAN = float("nan")
FIRST = Fixed((9.0, 5.0, 3.0, 1.0, NAN, NAN))
SECOND = Fixed((0.0, NAN, 0.1, 0.6, 0.2, NAN))


def blend(*parts, weights=None, depth=10) -> Blend:
    names = {f"part{i}": part for i, part in enumerate(parts)}
    return Blend(names, weights or (1.0,) * len(parts), depth, ITEMS)


def test_standard_scores_by_hand():
    asked = build_requests([(0, 1.0)])  # item 0 is in the history: it has no part in mean and deviation
    one = (np.array([9, 5, 3, 1]) - 3) / np.std([5, 3, 1])
    two = (np.array([0, 0.1, 0.6, 0.2]) - 0.3) / np.std([0.1, 0.6, 0.2])
    last = np.min(one[1:]), np.min(two[1:])  # what an item counts for that a part does not know
    expected = [one[0] + two[0], one[1] + last[1], one[2] + two[1], one[3] + two[2], last[0] + two[3], NAN]
    both = blend(FIRST, SECOND)
    assert both.score(asked, np.arange(ITEMS)[None]) == pytest.approx(np.array([expected]), abs=1e-5, nan_ok=True)
    items, scores = both.retrieve(asked, ITEMS, allow_all(asked, ITEMS))
    order = np.argsort(-np.array(expected[:5]), kind="stable")
    assert items[0].tolist() == [*order, -1]
    assert scores[0, :5] == pytest.approx(np.array(expected)[order], abs=1e-5)


def test_weights_change_the_order():
    asked = build_requests([(0, 1.0)])
    for weights, best in (((1.0, 0.0), 1), ((0.0, 1.0), 3)):
        items, _ = blend(FIRST, SECOND, weights=weights).retrieve(asked, 1, np.arange(ITEMS)[None] > 0)
        assert items[0, 0] == best


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 3.0)])
def test_all_weight_on_one_part_gives_exactly_its_answers(weights):
    """Also with ties, items that only the other part knows, and requests for which the part finds nothing."""
    parts = (Fixed((9.0, 5.0, NAN, 5.0, NAN, NAN)), Fixed((NAN, NAN, 0.1, 0.3, 0.2, 0.3)))
    asked = build_requests([(0, 1.0)], [], [(3, 1.0), (1, 1.0)])
    both, alone = blend(*parts, weights=weights, depth=2), parts[weights.index(max(weights))]
    every = np.tile(np.arange(ITEMS), (len(asked), 1))
    for k in (1, 2, ITEMS):
        for eligible in (allow_all(asked, ITEMS), every % 2 == 1):
            for mine, its in zip(both.retrieve(asked, k, eligible), alone.retrieve(asked, k, eligible), strict=True):
                assert np.array_equal(mine, its, equal_nan=True)
    assert np.array_equal(both.score(asked, every), alone.score(asked, every), equal_nan=True)


def test_a_part_of_weight_0_is_not_asked_and_brings_no_candidates():
    asked = build_requests([(0, 1.0)])
    third = Fixed((NAN, NAN, NAN, 2.0, 1.0, 9.0))
    two, three = blend(FIRST, SECOND), blend(FIRST, SECOND, third, weights=(1.0, 1.0, 0.0))
    allowed = allow_all(asked, ITEMS)
    assert list(three.weighted.parts) == ["part0", "part1"]
    assert np.array_equal(two.retrieve(asked, ITEMS, allowed)[0], three.retrieve(asked, ITEMS, allowed)[0])
    scores = blend(FIRST, third, depth=2).standardize(asked, 2, allowed)
    assert scores.items[scores.items >= 0].tolist() == [0, 1, 3, 5]  # the first knows item 3, but did not return it
    assert scores.items[~np.isnan(scores.combine((1.0, 0.0)))].tolist() == [0, 1]


def test_an_item_that_a_part_does_not_know_does_not_pass_what_the_part_found():
    """Almost all weight on the first part: item 4, which only the second knows, comes no earlier than its last."""
    asked = build_requests([(5, 1.0)])
    items, _ = blend(FIRST, SECOND, weights=(1.0, 0.001)).retrieve(asked, 5, allow_all(asked, ITEMS))
    assert items[0, :3].tolist() == [0, 1, 2] and set(items[0, 3:]) == {3, 4}  # as good as its last


def test_a_mask_does_not_change_scores():
    asked = build_requests([(0, 1.0)])
    both = blend(FIRST, SECOND)
    some = np.array([[False, True, False, True, True, False]])
    items, scores = both.retrieve(asked, 3, some)
    assert set(items[0]) == {1, 3, 4}
    assert np.array_equal(scores, both.score(asked, items))


def test_a_part_without_results_contributes_nothing():
    nothing = Fixed((NAN,) * ITEMS)
    asked = build_requests([(0, 1.0)])
    allowed = allow_all(asked, ITEMS)
    two, three = (b.retrieve(asked, 5, allowed) for b in (blend(FIRST, SECOND), blend(FIRST, SECOND, nothing)))
    assert np.array_equal(two[0], three[0]) and np.array_equal(two[1], three[1])
    assert np.array_equal(blend(FIRST, nothing).retrieve(asked, 5, allowed)[0], FIRST.retrieve(asked, 5, allowed)[0])
    items, scores = blend(nothing, nothing).retrieve(asked, 2, allow_all(asked, ITEMS))
    assert (items == -1).all() and np.isnan(scores).all()


def test_equal_scores_do_not_order_items_but_rank_above_items_not_found():
    asked = build_requests([(5, 1.0)])
    alike = Fixed((2.0, NAN, NAN, 2.0, 0.0, NAN))
    nothing = Fixed((NAN,) * ITEMS)
    items, scores = blend(alike, nothing, depth=2).retrieve(asked, 3, allow_all(asked, ITEMS))
    assert items.tolist() == [[0, 3, 4]] and scores.tolist() == [[0.0, 0.0, -1.0]]


def test_a_single_result_gives_candidates():
    asked = build_requests([(5, 1.0)])
    parts = Fixed((2.0, 2.0, 2.0, NAN, NAN, NAN)), Fixed((NAN,) * ITEMS)
    items, scores = blend(*parts).retrieve(asked, 2, allow_all(asked, ITEMS))
    assert items.tolist() == [[0, 1]] and scores.tolist() == [[0.0, 0.0]]


def test_more_items_than_the_depth_are_returned_on_request():
    asked = build_requests([(5, 1.0)])
    items, _ = blend(FIRST, SECOND, depth=2).retrieve(asked, 5, allow_all(asked, ITEMS))
    assert (items != -1).all()


def test_parts_must_be_retrievers_that_can_be_standardized():
    assert (
        RetrievalConfig.model_validate({"blend": {"parts": {"als": 1, "content": 0.5}}})["blend"].parts["content"]
        == 0.5
    )
    for part in ("alss", "blend", "history"):
        with pytest.raises(ValidationError, match=rf"blend.parts\n.*expected retrievers of als, .*got {part} "):
            RetrievalConfig.model_validate({"blend": {"parts": {part: 1.0}}})


@pytest.mark.parametrize("parts", [{"als": 0.0}, {"als": 1.0, "item_knn": -0.1}])
def test_weights_are_not_negative_and_not_all_0(parts):
    with pytest.raises(ValidationError, match="expected weights of at least 0, one of them above 0, got "):
        RetrievalConfig.model_validate({"blend": {"parts": parts}})
