"""What is wrong with a rules file is told with the rule, the field, what was expected and what was received."""

import numpy as np
import pytest

from handsell.core.errors import ConfigError
from handsell.reranking.rules.reading import parse_rules, read_rules
from rules_world import edition, rule, shelf_of

GOOD = rule("fresh", "boost", items="item.year >= 2015", factor=1.5)
EXPLICIT = "item.explicit"
AB = "[experiments.fresh_first]\narms = { a = 0.5, b = 0.5 }\n"


@pytest.fixture(scope="module")
def shelf():
    return shelf_of(np.random.default_rng(1))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule = 3", ["rule:", "got 3"]),
        ("[[rule]]\nname = ", ["not readable TOML"]),
        (rule("fresh", "boots", items=EXPLICIT), ["rule 'fresh' (no. 1)", "kind", "quota, boost, bury", "'boots'"]),
        (rule("fresh", "boost", items=EXPLICIT, factr=2), ["'fresh'", "factr", "did you mean factor?"]),
        (rule("fresh", "boost", items=EXPLICIT, factor=0.5), ["factor", "or equal to 1", "0.5"]),
        (rule("fresh", "boost", items=EXPLICIT), ["'fresh'", "factor above 1", "neither"]),
        (rule("fresh", "boost", factor=2), ["'fresh'", "at least one of items, newer_than_days", "got none"]),
        (GOOD + rule("third", "pin", items=EXPLICIT), ["'third' (no. 2)", "position", "expected a value; got none"]),
        (rule("third", "pin", items=EXPLICIT, position=31), ["position", "less than or equal to 30", "31"]),
        (rule("new", "quota", items=EXPLICIT), ["share alone, or min_share", "got none"]),
        (rule("new", "quota", items=EXPLICIT, share=0.1, max_share=0.2), ["got max_share, share"]),
        (rule("new", "quota", items=EXPLICIT, min_share=0.3, max_share=0.2), ["min_share up to max_share", "0.3"]),
        (rule("late", "exclude", items=EXPLICIT, hours="9-17"), ["hours", "18:00-24:00", "'9-17'"]),
        (rule("late", "exclude", items=EXPLICIT, days=["monday"]), ["days", "'mon'", "'monday'"]),
        (rule("late", "exclude", items=EXPLICIT, time_zone="Mars"), ["time_zone", "Europe/Berlin", "'Mars'"]),
        (rule("x", "exclude", items=EXPLICIT) + "from = 2026-02-01\nuntil = 2026-01-01\n", ["from before until"]),
        (GOOD + GOOD, ["got twice: fresh"]),
        (rule("fresh", "exclude", items=EXPLICIT, arm="b"), ["experiment", "(none)", "got none"]),
        (AB + rule("fresh", "exclude", items=EXPLICIT, arm="c"), ["arm of fresh_first (a, b)", "'c'"]),
        (AB.replace("b = 0.5", "b = 0.6"), ["experiments.fresh_first", "add up to 1", "1.1"]),
        ("".join(rule(f"r{n}", "exclude", items=EXPLICIT) for n in range(65)), ["at most 64", "got 65"]),
        (rule("fresh", "exclude", items="item.yeer > 3"), ["'fresh': items: column 1", "did you mean item.year?"]),
        (rule("fresh", "exclude", items="item.year > 'x'"), ["'fresh': items:", "item.year is a number"]),
        (rule("fresh", "exclude", items=EXPLICIT, surfaces=["hme"]), ["surfaces", "(home, email)", "'hme'"]),
    ],
)  # fmt: skip
def test_errors_say_where_what_was_expected_and_what_came(shelf, text, said):
    with pytest.raises(ConfigError) as error:
        edition(shelf, text)
    assert "rules.toml" in str(error.value)
    for part in said:
        assert part in str(error.value), str(error.value)


def test_every_error_of_a_file_is_told_at_once():
    text = rule("a", "pin", items=EXPLICIT) + rule("b", "boost", items=EXPLICIT, factor="x")
    with pytest.raises(ConfigError) as error:
        parse_rules(text.encode(), "rules.toml")
    assert "rule 'a' (no. 1)" in str(error.value) and "rule 'b' (no. 2)" in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rules(tmp_path / "none.toml")


def test_the_version_is_of_the_content_and_what_is_off_is_not_in_force(shelf):
    off = GOOD + rule("off", "exclude", items=EXPLICIT, enabled=False)
    assert edition(shelf, GOOD).ruleset.version == edition(shelf, GOOD).ruleset.version
    assert edition(shelf, off).ruleset.version != edition(shelf, GOOD).ruleset.version
    assert [r.name for r in edition(shelf, off).ruleset.rules.rules] == ["fresh"]


def test_what_is_off_is_checked_all_the_same():
    with pytest.raises(ConfigError, match="position"):
        parse_rules(rule("off", "pin", items=EXPLICIT, enabled=False).encode(), "rules.toml")
