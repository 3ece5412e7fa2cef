"""Rules from a TOML file; what is wrong is told with file, rule, field, what was expected and what was received."""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from handsell.core.errors import ConfigError
from handsell.core.section import Section
from handsell.reranking.rules.schema import KINDS, MOST_RULES, AnyRule, Experiment, Rule, RulesFile


@dataclass(frozen=True)
class Rules:
    """The rules of one file that are switched on, in its order. `version` names the file's content."""

    version: str
    rules: tuple[AnyRule, ...]
    experiments: dict[str, Experiment]
    source: str

    def fail(self, rule: Rule, field: str, why: str) -> ConfigError:
        return ConfigError(f"rules {self.source}: rule {rule.name!r}: {field}: {why}")


def read_rules(path: Path) -> Rules:
    """Raises ConfigError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"rules {path} cannot be read ({error.strerror}): give a TOML file, see docs/rules.md"
        ) from None
    return parse_rules(content, str(path))


def version_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def parse_rules(content: bytes, source: str) -> Rules:
    """`source` names the file in errors. Raises ConfigError."""
    try:
        raw = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"rules {source} is not readable TOML: {error}") from None
    try:
        read = RulesFile.model_validate(raw)
    except ValidationError as error:
        lines = [f"  {_where(raw, e)}{_what(e)}" for e in error.errors()]
        raise ConfigError(f"rules {source}:\n" + "\n".join(lines)) from None
    rules = Rules(version_of(content), tuple(r for r in read.rule if r.enabled), read.experiments, source)
    _check_names(rules, read)
    for rule in read.rule:
        _check_arm(rules, rule)
    return rules


def _check_names(rules: Rules, read: RulesFile) -> None:
    names = [rule.name for rule in read.rule]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"rules {rules.source}: name: expected a name of its own for each rule; got twice: {', '.join(twice)}"
        )
    if len(rules.rules) > MOST_RULES:
        raise ConfigError(
            f"rules {rules.source}: expected at most {MOST_RULES} rules; got {len(rules.rules)}: "
            "join selectors with `or`, or set enabled = false"
        )


def _check_arm(rules: Rules, rule: AnyRule) -> None:
    if rule.arm is None:
        return
    name, there = experiment_of(rules, rule), ", ".join(rules.experiments) or "none"
    if name not in rules.experiments:
        got = "none" if name is None else repr(name)
        raise rules.fail(rule, "experiment", f"expected one of the file's [experiments.<name>] ({there}); got {got}")
    if rule.arm not in rules.experiments[name].arms:
        arms = ", ".join(rules.experiments[name].arms)
        raise rules.fail(rule, "arm", f"expected an arm of {name} ({arms}); got {rule.arm!r}")


def experiment_of(rules: Rules, rule: AnyRule) -> str | None:
    """The rule's experiment; the only one of the file where the rule names none."""
    if rule.experiment is None and len(rules.experiments) == 1:
        return next(iter(rules.experiments))
    return rule.experiment


def _where(raw: dict[str, Any], error: ErrorDetails) -> str:
    """`rule 'fresh' (no. 2): factor: `"""
    loc = list(error["loc"])
    if len(loc) < 2 or loc[0] != "rule" or not isinstance(loc[1], int):
        return f"{'.'.join(map(str, loc))}: "
    given = raw["rule"][loc[1]]
    name = given.get("name") if isinstance(given, dict) else None
    fields = [str(part) for part in loc[2:] if part not in KINDS]
    return f"rule {name!r} (no. {loc[1] + 1}): " + "".join(f"{field}: " for field in fields)


def _what(error: ErrorDetails) -> str:
    got = f"; got {error['input']!r:.80}"
    match error["type"]:
        case "missing":
            return "expected; it is not there"
        case "extra_forbidden":
            return _no_such(error)
        case "union_tag_invalid" | "union_tag_not_found":
            kind = error["input"].get("kind") if isinstance(error["input"], dict) else error["input"]
            return f"kind: expected one of {', '.join(KINDS)}; got {kind!r:.40}"
        case "value_error":
            said = str(error.get("ctx", {}).get("error", error["msg"]))
            return said if "; got" in said else said + got
    return error["msg"].replace("Input should be", "expected").replace("String should match", "expected text of") + got


def _no_such(error: ErrorDetails) -> str:
    model: type[Section] = next((KINDS[str(part)] for part in error["loc"] if part in KINDS), RulesFile)
    there = [field.alias or name for name, field in model.model_fields.items()]
    close = difflib.get_close_matches(str(error["loc"][-1]), there, 1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"there is no such key; {meant}expected: {', '.join(there)}"
