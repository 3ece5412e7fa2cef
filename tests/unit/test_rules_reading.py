"""Errors in a rules file name the rule, the field, what was expected and what was received."""

import numpy as np
import pytest

from handsell.core.errors import ConfigError
from handsell.reranking.rules.reading import parse_rules, read_rules
from handsell.testing.rule_catalog import compile_rules, draw_rule_catalog, write_rule

GOOD = write_rule("fresh", "boost", items="item.year >= 2015", factor=1.5)
EXPLICIT = "item.explicit"
AB = "[experiments.fresh_first]\narms = { a = 0.5, b = 0.5 }\n"


@pytest.fixture(scope="module")
def shelf():
    return draw_rule_catalog(np.random.default_rng(1))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule = 3", ["rule:", "got 3"]),
        ("[[rule]]\nname = ", ["not readable TOML"]),
        (
            write_rule("fresh", "boots", items=EXPLICIT),
            ["rule 'fresh' (no. 1)", "kind", "quota, boost, bury", "'boots'"],
        ),
        (write_rule("fresh", "boost", items=EXPLICIT, factr=2), ["'fresh'", "factr", "did you mean factor?"]),
        (write_rule("fresh", "boost", items=EXPLICIT, factor=0.5), ["factor", "or equal to 1", "0.5"]),
        (write_rule("fresh", "boost", items=EXPLICIT), ["'fresh'", "factor above 1", "neither"]),
        (write_rule("fresh", "boost", factor=2), ["'fresh'", "at least one of items, newer_than_days", "got none"]),
        (
            GOOD + write_rule("third", "pin", items=EXPLICIT),
            ["'third' (no. 2)", "position", "expected a value; got none"],
        ),
        (write_rule("third", "pin", items=EXPLICIT, position=31), ["position", "less than or equal to 30", "31"]),
        (write_rule("new", "quota", items=EXPLICIT), ["share alone, or min_share", "got none"]),
        (write_rule("new", "quota", items=EXPLICIT, share=0.1, max_share=0.2), ["got max_share, share"]),
        (
            write_rule("new", "quota", items=EXPLICIT, min_share=0.3, max_share=0.2),
            ["min_share up to max_share", "0.3"],
        ),
        (write_rule("late", "exclude", items=EXPLICIT, hours="9-17"), ["hours", "18:00-24:00", "'9-17'"]),
        (write_rule("late", "exclude", items=EXPLICIT, days=["monday"]), ["days", "'mon'", "'monday'"]),
        (write_rule("late", "exclude", items=EXPLICIT, time_zone="Mars"), ["time_zone", "Europe/Berlin", "'Mars'"]),
        (write_rule("x", "exclude", items=EXPLICIT) + "from = 2026-02-01\nuntil = 2026-01-01\n", ["from before until"]),
        (GOOD + GOOD, ["got twice: fresh"]),
        (write_rule("fresh", "exclude", items=EXPLICIT, arm="b"), ["experiment", "(none)", "got none"]),
        (AB + write_rule("fresh", "exclude", items=EXPLICIT, arm="c"), ["arm of fresh_first (a, b)", "'c'"]),
        (AB.replace("b = 0.5", "b = 0.6"), ["experiments.fresh_first", "add up to 1", "1.1"]),
        ("".join(write_rule(f"r{n}", "exclude", items=EXPLICIT) for n in range(65)), ["at most 64", "got 65"]),
        (
            write_rule("fresh", "exclude", items="item.yeer > 3"),
            ["'fresh': items: column 1", "did you mean item.year?"],
        ),
        (write_rule("fresh", "exclude", items="item.year > 'x'"), ["'fresh': items:", "item.year is a number"]),
        (write_rule("fresh", "exclude", items=EXPLICIT, surfaces=["hme"]), ["surfaces", "(home, email)", "'hme'"]),
    ],
)
def test_errors_name_rule_field_expected_and_received(shelf, text, said):
    with pytest.raises(ConfigError) as error:
        compile_rules(shelf, text)
    assert "rules.toml" in str(error.value)
    for part in said:
        assert part in str(error.value), str(error.value)


def test_all_errors_of_a_file_are_reported_together():
    text = write_rule("a", "pin", items=EXPLICIT) + write_rule("b", "boost", items=EXPLICIT, factor="x")
    with pytest.raises(ConfigError) as error:
        parse_rules(text.encode(), "rules.toml")
    assert "rule 'a' (no. 1)" in str(error.value) and "rule 'b' (no. 2)" in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rules(tmp_path / "none.toml")


def test_the_version_is_a_hash_of_the_content_and_disabled_rules_are_left_out(shelf):
    off = GOOD + write_rule("off", "exclude", items=EXPLICIT, enabled=False)
    assert compile_rules(shelf, GOOD).ruleset.version == compile_rules(shelf, GOOD).ruleset.version
    assert compile_rules(shelf, off).ruleset.version != compile_rules(shelf, GOOD).ruleset.version
    assert [r.name for r in compile_rules(shelf, off).ruleset.rules.rules] == ["fresh"]


def test_disabled_rules_are_checked_too():
    with pytest.raises(ConfigError, match="position"):
        parse_rules(write_rule("off", "pin", items=EXPLICIT, enabled=False).encode(), "rules.toml")
