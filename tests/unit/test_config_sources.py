"""The sources' sections: defaults, enabled sources, and the largest number of them."""

import pytest

from handsell.core.errors import ConfigError
from handsell.retrieval.config import RetrievalConfig

ON = {"popularity", "item_knn", "als", "two_tower", "content"}
OFF = ["transitions", "session_knn", "sasrec", "spectral", "ease", "user_knn", "trending", "bought_together"]


def test_a_section_that_sets_one_key_keeps_its_other_defaults():
    plain = RetrievalConfig()
    dialled = RetrievalConfig.model_validate(
        {name: {"half_life_days": 3.0} for name in ("popularity", "history", "content", "transitions", "session_knn")}
    )
    for name in ("popularity", "history", "content", "transitions", "session_knn"):
        before, after = plain[name].model_dump(), dialled[name].model_dump()
        assert {key for key in before if before[key] != after[key]} == {"half_life_days"}, name


def test_the_sources_that_are_enabled_by_default():
    assert set(RetrievalConfig().enabled) == ON


def test_more_sources_than_candidates_can_hold_are_rejected(configured):
    sections = "\n".join(f"[retrieval.{name}]\nenabled = true" for name in OFF[:4])
    with pytest.raises(ConfigError, match=r"at most 8 sources, got 9.*enabled = false"):
        configured(f'name = "many"\n{sections}\n')
