"""Contract tests for kinds of business rules. To run them for a registered kind, inherit the class in a test module:

from handsell.testing.rule_contract import RuleContract

class TestApart(RuleContract):
    names = ("apart",)

Each rule is built from the kind's `example`, which has to fit the catalog of handsell.testing.rule_catalog.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from handsell.core.batches import NONE, Candidates, Ragged, Requests, Slates
from handsell.core.errors import ConfigError
from handsell.core.funnel import run_local
from handsell.reranking.rules.kind import RuleKind, rule_kinds
from handsell.reranking.rules.reading import parse_rules
from handsell.reranking.rules.schema import Rule
from handsell.testing.rule_catalog import build_stage, draw_rule_catalog, write_rule
from handsell.testing.small_catalog import draw_candidates, draw_requests

CATALOG = draw_rule_catalog(np.random.default_rng(3))
SOME = "item.year >= 2010"
ROWS, CANDIDATES, N = 4, 30, 10


def draw_batch(seed: int, padding: int = 0) -> tuple[Requests, Candidates]:
    rng = np.random.default_rng(seed)
    return draw_requests(rng, CATALOG, ROWS), draw_candidates(rng, CATALOG, ROWS, CANDIDATES, pad=padding)


def rerank(text: str | None, requests: Requests, candidates: Candidates, n: int = N) -> Slates:
    """Return slates under the rules of a TOML text, without earlier impressions; None: without rules."""
    return run_local(build_stage(CATALOG, text).rerank(requests, candidates, n))


class RuleContract:
    """What every kind of rule guarantees."""

    names: ClassVar[tuple[str, ...]]  # of registered kinds

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "kind" in metafunc.fixturenames:
            metafunc.parametrize("kind", [rule_kinds()[name] for name in self.names], ids=self.names)
        if "seed" in metafunc.fixturenames:
            metafunc.parametrize("seed", range(5))

    def write(self, kind: RuleKind, **fields: Any) -> str:
        """Return a rule of this kind as TOML; `items` matches half of the catalog unless given."""
        return write_rule("tested", kind.name, **{"items": SOME, **kind.example, **fields})

    def test_its_config_is_a_rule_with_a_docstring_and_a_summary(self, kind: RuleKind) -> None:
        assert issubclass(kind.config, Rule) and kind.config is not Rule
        assert vars(kind.config).get("__doc__"), "docs/rules.md shows the docstring"
        (rule,) = parse_rules(self.write(kind).encode(), "rules.toml").rules
        assert rule.kind == kind.name and isinstance(rule, kind.config)
        assert rule.summary()

    def test_an_unknown_key_is_refused_by_name(self, kind: RuleKind) -> None:
        with pytest.raises(ConfigError) as error:
            parse_rules(self.write(kind, colour="red").encode(), "rules.toml")
        message = str(error.value)
        assert "rules.toml" in message and "rule 'tested' (no. 1): colour: unknown key" in message
        known = [field.alias or name for name, field in kind.config.model_fields.items()]
        assert f"expected: {', '.join(known)}" in message

    def test_a_key_of_the_wrong_type_is_refused_with_the_value(self, kind: RuleKind) -> None:
        for key in kind.example:
            with pytest.raises(ConfigError, match=rf"rule 'tested' \(no\. 1\): {key}: .*; got \['nonsense'\]"):
                parse_rules(self.write(kind, **{key: ["nonsense"]}).encode(), "rules.toml")

    def test_a_rule_without_matching_items_changes_nothing(self, kind: RuleKind, seed: int) -> None:
        requests, candidates = draw_batch(seed)
        without, got = (
            rerank(text, requests, candidates) for text in (None, self.write(kind, items="item.year == 1900"))
        )
        for name in ("item", "score", "propensity", "reason", "source"):
            np.testing.assert_array_equal(getattr(got, name), getattr(without, name))

    def test_a_rule_of_another_surface_changes_nothing(self, kind: RuleKind, seed: int) -> None:
        requests, candidates = draw_batch(seed)
        without, got = (rerank(text, requests, candidates) for text in (None, self.write(kind, surfaces=["email"])))
        assert np.array_equal(got.item, without.item)
        assert [got.relaxed_constraints(b, N) for b in range(ROWS)] == [
            without.relaxed_constraints(b, N) for b in range(ROWS)
        ]

    def test_it_changes_some_slate(self, kind: RuleKind) -> None:
        for seed in range(20):
            requests, candidates = draw_batch(seed)
            got = rerank(self.write(kind), requests, candidates)
            if not np.array_equal(got.item, rerank(None, requests, candidates).item):
                return
        pytest.fail("the example of the kind changes nothing on 20 batches")

    def test_a_batch_gives_what_single_requests_give(self, kind: RuleKind, seed: int) -> None:
        requests, candidates = draw_batch(seed)
        text = self.write(kind)
        together = rerank(text, requests, candidates)
        for b in range(ROWS):
            alone = rerank(text, requests.take(slice(b, b + 1)), candidates.take(slice(b, b + 1)))
            assert np.array_equal(alone.item[0], together.item[b]), f"row {b} depends on its batch"
            assert alone.relaxed_constraints(0, N) == together.relaxed_constraints(b, N)

    def test_no_item_is_lost_or_duplicated(self, kind: RuleKind, seed: int) -> None:
        """A slate with room for every candidate has all that the rule does not match; other items match the rule."""
        requests, candidates = draw_batch(seed, padding=seed)
        got = rerank(self.write(kind), requests, candidates, n=CANDIDATES)
        matching = np.arange(len(CATALOG)) % 20 >= 10
        for b in range(ROWS):
            shown = got.item[b][got.item[b] != NONE]
            found = candidates.item[b][candidates.item[b] != NONE]
            assert len(set(shown)) == len(shown)
            lost, new = np.setdiff1d(found, shown), np.setdiff1d(shown, found)
            assert matching[lost].all() and matching[new].all()

    def test_excluded_items_are_not_shown(self, kind: RuleKind, seed: int) -> None:
        requests, candidates = draw_batch(seed)
        requests = replace(requests, exclude=Ragged.from_rows([row[::2] for row in candidates.item]))
        got = rerank(self.write(kind), requests, candidates)
        for b in range(ROWS):
            assert not np.isin(got.item[b], candidates.item[b, ::2]).any()
