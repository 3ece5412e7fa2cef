"""Write the tables of keys in docs/rules.md from the kinds of rules: `python docs/make_rules.py`. A test compares."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from handsell.reranking.rules.kind import RuleKind, rule_kinds
from handsell.reranking.rules.schema import Rule

PAGE = Path(__file__).with_name("rules.md")
BEGIN, END = "<!-- begin {}: written by docs/make_rules.py -->\n", "<!-- end -->"


def fill(page: str) -> str:
    """Return the page with both tables replaced."""
    for name, rows in (("kinds", _kinds()), ("keys", _shared_keys())):
        begin = BEGIN.format(name)
        before, rest = page.split(begin)
        page = before + begin + "\n".join(rows) + "\n" + END + rest.split(END, 1)[1]
    return page


def _kinds() -> list[str]:
    rows = ["| kind | its keys | effect |", "|---|---|---|"]
    for kind in rule_kinds().values():
        if not kind.config.__module__.startswith(f"{RuleKind.package}."):
            continue  # of another package
        fields = kind.schema.model_json_schema()["properties"]
        own = [(key, field) for key, field in fields.items() if key not in Rule.model_fields and key != "from"]
        keys = "; ".join(f"`{key}` {_describe(field)}".strip() for key, field in own)
        effect = " ".join((inspect.getdoc(kind.config) or "").split())
        rows.append(f"| `{kind.name}` | {keys} | {effect} |")
    return rows


def _shared_keys() -> list[str]:
    fields = Rule.model_json_schema()["properties"].items()
    return ["| key | |", "|---|---|", *(f"| `{key}` | {_describe(field)} |" for key, field in fields)]


def _describe(field: dict[str, Any]) -> str:
    """Range or choices, and the description."""
    parts = [_range(field), field.get("description", "")]
    return ", ".join(part for part in parts if part)


def _range(field: dict[str, Any]) -> str:
    for option in field.get("anyOf", [field]):
        if "enum" in option:
            return " or ".join(f'`"{choice}"`' for choice in option["enum"])
        if "minimum" in option and "maximum" in option:
            return f"{option['minimum']:g} to {option['maximum']:g}"
    return ""


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")
