"""docs/rules.md lists every kind of rule and every key, as the config classes have them."""

import importlib.util
from pathlib import Path

import pytest

from handsell.reranking.rules.kind import rule_kinds
from handsell.reranking.rules.schema import Rule

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def page():
    return (DOCS / "rules.md").read_text(encoding="utf-8")


def test_the_tables_follow_from_the_kinds(page):
    spec = importlib.util.spec_from_file_location("make_rules", DOCS / "make_rules.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert page == module.fill(page), "run python docs/make_rules.py"


def test_every_built_in_kind_and_key_is_in_a_table(page):
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for kind in rule_kinds().values():
        (row,) = [row for row in rows if row.startswith(f"| `{kind.name}` |")]
        own = [name for name in kind.config.model_fields if name not in Rule.model_fields]
        assert all(f"`{name}`" in row for name in own)
    for name, field in Rule.model_fields.items():
        assert any(row.startswith(f"| `{field.alias or name}` |") for row in rows)
        assert field.description
