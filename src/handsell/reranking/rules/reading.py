"""Read rules from a TOML file. Errors name the file, the rule, the field, what was expected and what was received."""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from handsell.core.errors import ConfigError
from handsell.core.section import Section
from handsell.reranking.rules.kind import rule_kinds
from handsell.reranking.rules.schema import Rule, RuleExperiment

MAX_RULES = 64  # enabled in one file: an item's memberships are the bits of one uint64


@dataclass(frozen=True)
class Rules:
    """The enabled rules of one file, in its order. `version` is a hash of the file's content."""

    version: str
    rules: tuple[Rule, ...]
    experiments: dict[str, RuleExperiment]
    source: str

    def error(self, rule: Rule, why: str) -> ConfigError:
        return ConfigError(f"rules {self.source}: rule {rule.name!r}: {why}")


@cache
def rules_file() -> type[Section]:
    """Return the model of a rules file: `experiments`, and `rule`, each read by the class that its kind registers."""
    any_rule: Any = reduce(or_, (kind.schema for kind in rule_kinds().values()))
    rule: Any = (tuple[Annotated[any_rule, Field(discriminator="kind")], ...], ())
    experiments: Any = (dict[str, RuleExperiment], Field(default_factory=dict))
    return create_model("RulesFile", __base__=Section, experiments=experiments, rule=rule)


def read_rules(path: Path) -> Rules:
    """Raises ConfigError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"rules {path} cannot be read ({error.strerror}): expected a TOML file, see docs/rules.md"
        ) from None
    return parse_rules(content, str(path))


def version_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def parse_rules(content: bytes, source: str) -> Rules:
    """Parse the content of a rules file; `source` names it in errors. Raises ConfigError."""
    try:
        raw = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"rules {source} is not readable TOML: {error}") from None
    try:
        read: Any = rules_file().model_validate(raw)
    except ValidationError as error:
        lines = [f"  {_location(raw, e)}{_problem(e)}" for e in error.errors()]
        raise ConfigError(f"rules {source}:\n" + "\n".join(lines)) from None
    rules = Rules(version_of(content), tuple(r for r in read.rule if r.enabled), read.experiments, source)
    _check_names(rules, read.rule)
    for rule in read.rule:
        _check_arm(rules, rule)
    return rules


def _check_names(rules: Rules, every: tuple[Rule, ...]) -> None:
    names = [rule.name for rule in every]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"rules {rules.source}: name: expected unique names; got twice: {', '.join(repeated)}")
    if len(rules.rules) > MAX_RULES:
        raise ConfigError(
            f"rules {rules.source}: expected at most {MAX_RULES} rules; got {len(rules.rules)}: "
            "join selectors with `or`, or set enabled = false"
        )


def _check_arm(rules: Rules, rule: Rule) -> None:
    if rule.arm is None:
        return
    name, known = experiment_of(rules, rule), ", ".join(rules.experiments) or "none"
    if name is None:
        expected = f"expected one of the file's [experiments.<name>] ({known}), or one of the config"
        raise rules.error(rule, f"experiment: {expected}; got none")
    if name not in rules.experiments:
        return  # of the config, which the scope checks
    if rule.arm not in rules.experiments[name].arms:
        arms = ", ".join(rules.experiments[name].arms)
        raise rules.error(rule, f"arm: expected an arm of {name} ({arms}); got {rule.arm!r}")


def experiment_of(rules: Rules, rule: Rule) -> str | None:
    """Return the rule's experiment; the only one of the file if the rule names none."""
    if rule.experiment is None and len(rules.experiments) == 1:
        return next(iter(rules.experiments))
    return rule.experiment


# -- errors ------------------------------------------------------------------------------------------------------


def _location(raw: dict[str, Any], error: ErrorDetails) -> str:
    """`rule 'fresh' (no. 2): factor: `"""
    loc = list(error["loc"])
    if len(loc) < 2 or loc[0] != "rule" or not isinstance(loc[1], int):
        return f"{'.'.join(map(str, loc))}: "
    rule = raw["rule"][loc[1]]
    name = rule.get("name") if isinstance(rule, dict) else None
    return f"rule {name!r} (no. {loc[1] + 1}): " + "".join(f"{field}: " for field in loc[3:])


def _problem(error: ErrorDetails) -> str:
    got = f"; got {error['input']!r:.80}"
    match error["type"]:
        case "missing":
            return "expected a value; got none"
        case "extra_forbidden":
            return _unknown_key(error)
        case "union_tag_invalid" | "union_tag_not_found":
            kind = error["input"].get("kind") if isinstance(error["input"], dict) else error["input"]
            return f"kind: expected one of {', '.join(rule_kinds())}; got {kind!r:.40}"
        case "value_error":
            message = str(error.get("ctx", {}).get("error", error["msg"]))
            return message if "; got" in message else message + got
    return error["msg"].replace("Input should be", "expected").replace("String should match", "expected text of") + got


def _unknown_key(error: ErrorDetails) -> str:
    loc = error["loc"]
    model = rule_kinds()[str(loc[2])].schema if loc[0] == "rule" else rules_file()
    known = [field.alias or name for name, field in model.model_fields.items()]
    close = difflib.get_close_matches(str(loc[-1]), known, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown key; {hint}expected: {', '.join(known)}"
