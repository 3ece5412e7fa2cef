"""A config file outside the checkout uses the files of the checkout."""

import pytest

from handsell.config import find_shipped
from handsell.features.repository import find_feature_repo


@pytest.fixture
def elsewhere(configured, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return configured('name = "shop"')


@pytest.mark.parametrize("topology", ["graph", "fused"])
def test_serve_files_and_feature_definitions_are_found(elsewhere, topology, tmp_path):
    found = find_shipped(elsewhere.source, f"deployments/serve/{topology}.yaml")
    assert found is not None and found.is_file() and tmp_path not in found.parents
    assert (find_feature_repo(elsewhere) / "feature_store.yaml").is_file()


def test_a_file_above_the_config_has_priority(elsewhere, tmp_path):
    own = tmp_path / "deployments" / "serve" / "graph.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("")
    assert find_shipped(elsewhere.source, "deployments/serve/graph.yaml") == own


def test_an_unknown_file_is_not_found(elsewhere):
    assert find_shipped(elsewhere.source, "deployments/serve/nope.yaml") is None
