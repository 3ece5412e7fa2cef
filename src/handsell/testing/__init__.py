"""Tests and data for authors of plug-ins; needs pytest (`pip install 'handsell[testing]'`).

Contract tests, one module per kind of plug-in: a test class inherits them and names the plug-in.
    retriever_contract   `RetrieverContract`
    feature_contract     `FeatureContract`
    rule_contract        `RuleContract`
Data with a known answer:
    planted_taste        interactions in which the right neighbors are known, requests, settings for small data
    planted_ranking      ranker examples in which the right order is known
    small_catalog        random snapshots, requests and candidates
    rule_catalog         a snapshot for business rules, and rules compiled for it
A reference for the served answer, in plain loops:
    naive_funnel         the slate of a trained bundle
    naive_past           features of users and items, from the interactions
    naive_sources        scores of retrievers, from what they save in the bundle
"""

try:
    import pytest
except ImportError as error:
    raise ImportError("handsell.testing needs pytest: pip install 'handsell[testing]'") from error

pytest.register_assert_rewrite(*(f"{__name__}.{kind}_contract" for kind in ("retriever", "feature", "rule")))
