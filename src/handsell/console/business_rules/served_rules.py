"""The rules that are in the file, on the catalog as it is now: for the pages Rules and Catalog."""

from __future__ import annotations

from dataclasses import dataclass

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.console.business_rules.rule_words import RuleInWords, put_in_words
from handsell.console.catalog.shown_catalog import CatalogView
from handsell.core.batches import NONE
from handsell.core.errors import ConfigError
from handsell.reranking.rules.description import describe_rules, find_rules_of_item
from handsell.reranking.rules.publication import RulesFile
from handsell.reranking.rules.reading import parse_rules
from handsell.reranking.rules.ruleset import RuleSet


@dataclass(frozen=True, slots=True)
class CheckedRules:
    """A file of rules that fits the catalog, or the problem with it."""

    version: str
    rules: tuple[RuleInWords, ...]
    problem: str = ""


def check_rules(view: CatalogView, content: bytes, source: str = "draft") -> CheckedRules:
    """Check the content of a rules file on the catalog, the surfaces and the experiments of the deployment."""
    try:
        ruleset = compile_rules(view.config, view.snapshot, content, source)
    except ConfigError as error:
        return CheckedRules("", (), str(error))
    return CheckedRules(ruleset.version, tuple(put_in_words(one) for one in describe_rules(ruleset, view.now)))


def compile_rules(config: Config, snapshot: Snapshot, content: bytes, source: str) -> RuleSet:
    """Raises ConfigError."""
    arms = {name: tuple(experiment.arms) for name, experiment in config.experiments.items()}
    return RuleSet.of(parse_rules(content, source), snapshot, config.surface_names, arms)


def list_rules_of_item(view: CatalogView, item_id: str) -> tuple[RuleInWords, ...]:
    """Return the served rules that select an item, whether they apply now or not; raises ConfigError."""
    number = int(view.snapshot.items.number([item_id])[0])
    if view.config.rules_path is None or number == NONE:
        return ()
    file = RulesFile(view.config)
    ruleset = compile_rules(view.config, view.snapshot, file.read(), str(file.path))
    return tuple(put_in_words(one) for one in find_rules_of_item(ruleset, number, view.now))
