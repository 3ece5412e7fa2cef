"""The rule kind `apart` keeps the contract of rule kinds, and keeps items with equal values apart."""

import numpy as np
import pytest

from handsell.core.errors import ConfigError
from handsell.core.funnel import run_local
from handsell.testing.rule_catalog import build_stage, compile_rules, draw_rule_catalog, write_rule
from handsell.testing.rule_contract import RuleContract
from handsell.testing.small_catalog import draw_candidates, draw_requests

CATALOG = draw_rule_catalog(np.random.default_rng(0))
EVERY = "item.year > 0"


class TestApart(RuleContract):
    names = ("apart",)


def rerank(text, k, n=10):
    rng = np.random.default_rng(1)
    return run_local(
        build_stage(CATALOG, text).rerank(draw_requests(rng, CATALOG, 8), draw_candidates(rng, CATALOG, 8, k), n)
    )


def distances(item):
    """Items between two neighbors of one brand, over all slates."""
    brand = item % 7
    return [
        b - a - 1
        for row in brand
        for a in range(len(row))
        for b in range(a + 1, len(row))
        if row[a] == row[b] and not (row[a + 1 : b] == row[a]).any()
    ]


def test_items_of_one_brand_are_kept_apart():
    text = write_rule("brands", "apart", items=EVERY, column="brand", gap=3)
    assert min(distances(rerank(None, 50).item)) < 3 <= min(distances(rerank(text, 50).item))


def test_it_yields_and_says_so_if_too_few_brands_are_left():
    got = rerank(write_rule("brands", "apart", items=EVERY, column="brand", gap=8), 50)
    assert (got.item != -1).all()
    assert all("rule:brands" in got.relaxed_constraints(b, 10) for b in range(8))


def test_more_constraints_than_selection_can_order_are_refused():
    text = "".join(write_rule(f"r{n}", "apart", items=EVERY) for n in range(9))
    with pytest.raises(ConfigError, match=r"at most 8 rules that constrain the order of a slate; got 9 \(r0, r1"):
        compile_rules(CATALOG, text)


def test_an_unknown_column_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"rule 'brands': column: expected a column of the items .*; got 'colour'"):
        compile_rules(CATALOG, write_rule("brands", "apart", items=EVERY, column="colour"))
