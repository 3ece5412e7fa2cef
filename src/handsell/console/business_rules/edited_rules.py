"""What the page Rules shows: the served rules, the draft that is looked at, and the published versions."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass

from handsell.config import Config
from handsell.console.business_rules.drafts import RuleDrafts
from handsell.console.business_rules.rule_words import name_kind
from handsell.console.business_rules.served_rules import CheckedRules, check_rules
from handsell.console.catalog.shown_catalog import CatalogView
from handsell.core.errors import ConfigError
from handsell.reranking.rules.kind import rule_kinds
from handsell.reranking.rules.publication import PublishedRules, RulesFile
from handsell.reranking.rules.reading import version_of

NO_FILE = (
    'To have rules, write `rules = "rules.toml"` below [reranking] in the configuration, create that file beside it, '
    "which may be empty, and deploy again."
)
GONE = "This draft is not kept any more; the served rules are shown instead."


@dataclass(frozen=True, slots=True)
class EditedRules:
    served: CheckedRules
    served_version: str  # of the file, empty without one or where it cannot be read
    text: str  # of the draft, or of the served file where there is none
    draft: str  # version of the kept draft, empty where the served rules are shown
    checked: CheckedRules  # the text
    paused: tuple[tuple[str, str], ...]  # name and effect of its rules that are not enabled
    obstacle: str  # why nothing can be published from here, empty if it can
    history: tuple[PublishedRules, ...]
    difference: str  # from the served rules, in words
    arms: tuple[tuple[str, str], ...]  # arms of experiments with another file of rules, and its name
    notice: str = ""


def open_edited(view: CatalogView, drafts: RuleDrafts, draft: str, text: str | None = None) -> EditedRules:
    """Open a draft by its version, that of a published one too; `text` replaces it and is not kept."""
    try:
        file = RulesFile(view.config)
        served, obstacle, history = file.read(), file.find_obstacle() or "", tuple(file.list_versions())
        served_version = version_of(served)
    except ConfigError as error:
        obstacle = NO_FILE if view.config.rules_path is None else str(error)
        file, served, history, served_version = None, b"", (), ""
    content = drafts.read(draft) if draft else None
    if content is None and file is not None and draft in {one.version for one in history}:
        content = file.read_version(draft)
        draft = drafts.save(content.decode("utf-8", "replace"))
    notice = GONE if draft and content is None else ""
    if text is not None:
        content, draft = text.encode(), ""
    if content is None:
        content, draft = served, ""
    checked_served = check_rules(view, served, "served")
    checked = checked_served if content == served else check_rules(view, content)
    return EditedRules(
        checked_served, served_version, content.decode("utf-8", "replace"), draft, checked, list_paused(content),
        obstacle, history, compare_rules(checked_served, checked), list_arms(view.config), notice,
    )  # fmt: skip


def compare_rules(served: CheckedRules, draft: CheckedRules) -> str:
    """Say which active rules a draft adds, changes and lacks."""
    before, after = ({rule.name: rule for rule in one.rules} for one in (served, draft))
    named = {
        "New": [name for name in after if name not in before],
        "Changed": [name for name in after if name in before and after[name] != before[name]],
        "Gone": [name for name in before if name not in after],
    }
    parts = [f"{word}: {', '.join(names)}." for word, names in named.items() if names]
    return " ".join(parts) or "They are the same as the served ones."


def list_arms(config: Config) -> tuple[tuple[str, str], ...]:
    """Return the arms whose people get the rules of another file, or none."""
    return tuple(
        (f"{name}.{arm_name}", arm.rules)
        for name, experiment in config.experiments.items()
        for arm_name, arm in experiment.arms.items()
        if arm.rules
    )


def list_paused(content: bytes) -> tuple[tuple[str, str], ...]:
    """Return the rules that are in a file without being enabled; none of a file that is not readable."""
    try:
        rules = tomllib.loads(content.decode("utf-8", "replace")).get("rule", [])
    except tomllib.TOMLDecodeError:
        return ()
    rows = [rule for rule in rules if isinstance(rule, dict)] if isinstance(rules, list) else []
    paused = [rule for rule in rows if rule.get("enabled") is False and isinstance(rule.get("name"), str)]
    return tuple((one["name"], name_kind(one["kind"])) for one in paused if one.get("kind") in rule_kinds())
