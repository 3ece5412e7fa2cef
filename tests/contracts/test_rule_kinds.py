"""Every registered kind of rule keeps the contract of handsell.testing.rule_contract."""

from handsell.reranking.rules.kind import rule_kinds
from handsell.testing.rule_contract import RuleContract


class TestRuleKinds(RuleContract):
    names = tuple(rule_kinds())
