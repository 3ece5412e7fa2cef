"""Changes of a rules file as text, so that its comments and order stay.

The text is cut where a line begins a table. A change is made only if, read again, the file differs in nothing else.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from datetime import date
from typing import Any

from handsell.core.errors import ConfigError

RULE = re.compile(r"^\s*\[\[\s*rule\s*\]\]\s*(#.*)?$")
TABLE = re.compile(r"^\s*\[")
ENABLED = re.compile(r"^\s*enabled\s*=")
BY_HAND = "it cannot be changed by a button in this file: edit the text"


def append_rule(text: str, fields: Mapping[str, Any]) -> str:
    """Return the text with one more rule at its end."""
    lines = [f"{name} = {_write_value(value)}" for name, value in fields.items() if value not in ("", None, [])]
    block = "\n".join(["[[rule]]", *lines])
    return f"{text.rstrip()}\n\n{block}\n" if text.strip() else f"{block}\n"


def switch_rule(text: str, name: str, is_enabled: bool) -> str:
    """Return the text with a rule switched on or off; raises ConfigError."""

    def switch(block: list[str]) -> list[str]:
        kept = [line for line in block if not ENABLED.match(line)]
        return kept if is_enabled else [kept[0], "enabled = false", *kept[1:]]

    def expect(rule: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in rule.items() if key != "enabled"}
        return kept if is_enabled else {**kept, "enabled": False}

    return _change_rule(text, name, switch, expect)


def remove_rule(text: str, name: str) -> str:
    """Return the text without a rule; raises ConfigError."""
    return _change_rule(text, name, lambda block: [], lambda rule: None)


def _change_rule(text: str, name: str, change: Any, expect: Any) -> str:
    rules = _load(text).get("rule", [])
    place = next((at for at, rule in enumerate(rules) if rule.get("name") == name), None)
    if place is None:
        raise ConfigError(f"rule {name[:60]!r}: expected one of this file, there is none of this name: read it again")
    blocks = _cut(text)
    starts = [at for at, block in enumerate(blocks) if block and RULE.match(block[0])]
    if len(starts) != len(rules):
        raise ConfigError(f"rule {name!r}: {BY_HAND}")
    at = starts[place]
    blocks[at] = change(blocks[at])
    changed = "\n".join(line for block in blocks for line in block)
    changed = changed + "\n" if changed and not changed.endswith("\n") else changed
    wanted = [expect(rule) if n == place else rule for n, rule in enumerate(rules)]
    before, after = _load(text), _load(changed)
    if {**after, "rule": after.get("rule", [])} != {**before, "rule": [rule for rule in wanted if rule is not None]}:
        raise ConfigError(f"rule {name!r}: {BY_HAND}")
    return changed


def _cut(text: str) -> list[list[str]]:
    """Return the lines in blocks: what is before the first table, then each table; comments above one belong to it."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if not TABLE.match(line):
            blocks[-1].append(line)
            continue
        blocks.append([line])
    return blocks


def _load(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the rules are not readable TOML: {error}") from None


def _write_value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case date():
            return value.isoformat()
        case list():
            return "[" + ", ".join(_write_value(one) for one in value) + "]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
