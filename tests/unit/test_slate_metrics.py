"""Live list metrics are those of the report, computed from the slates as they go by."""

from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from handsell.evaluation import list_metrics
from handsell.features.registry import find_features
from handsell.serving.telemetry import slate_metrics
from handsell.serving.telemetry.slate_metrics import SlateMetrics
from handsell.testing.small_catalog import draw_snapshot

ITEM_FEATURES = tuple(find_features("item"))


@pytest.fixture
def shelf():
    rng = np.random.default_rng(0)
    found = draw_snapshot(rng, items=50)
    values = rng.integers(0, 40, (50, len(ITEM_FEATURES))).astype(np.float32)
    return replace(found, values=values, value_names=ITEM_FEATURES)


def mean(registry, name):
    labels = {"surface": "home"}
    total, many = (registry.get_sample_value(f"{name}_{part}", labels) for part in ("sum", "count"))
    return total / many


def test_means_equal_the_reports(shelf, monkeypatch):
    monkeypatch.setattr(slate_metrics, "WINDOW", 4)
    rng, registry = np.random.default_rng(1), CollectorRegistry()
    watch = SlateMetrics(registry)
    items = np.stack([rng.permutation(50)[:8] for _ in range(6)]).astype(np.int32)
    for b, row in enumerate(items):
        watch.record("home", f"u{b % 2}", row, b % 3, shelf)
    user, time = np.arange(6) % 2, np.arange(6)
    popularity = shelf.values[:, ITEM_FEATURES.index("item_positives_total")]
    expected = {
        "slate_diversity": list_metrics.intra_list_diversity(items, shelf.tag_matrix),
        "slate_novelty_bits": list_metrics.novelty(items, list_metrics.self_information(popularity)),
        "slate_repeat_rate": list_metrics.repeat_rate(items, user, time),
    }
    for name, values in expected.items():
        assert mean(registry, f"handsell_{name}") == pytest.approx(np.nanmean(values), abs=1e-6), name
    everything = np.ones(50, bool)
    assert registry.get_sample_value("handsell_exposure_gini") == pytest.approx(
        list_metrics.gini(items[-4:], everything)
    )
    assert registry.get_sample_value("handsell_exposure_coverage") == list_metrics.coverage(items[-4:], everything)
    assert registry.get_sample_value("handsell_explored_items_total", {"surface": "home"}) == 6


def test_empty_slates_visitors_and_another_catalog(shelf, monkeypatch):
    registry = CollectorRegistry()
    watch = SlateMetrics(registry)
    assert np.isnan(registry.get_sample_value("handsell_exposure_gini"))
    watch.record("home", None, np.zeros(0, np.int32), 0, shelf)
    watch.record("home", None, np.array([3], np.int32), 0, shelf)
    assert registry.get_sample_value("handsell_slate_repeat_rate_count", {"surface": "home"}) is None
    larger = draw_snapshot(np.random.default_rng(0), items=100)
    watch.record("home", "u", np.array([3, 99], np.int32), 0, larger)
    watch.record("home", "u", np.array([3, 4], np.int32), 0, larger)
    assert registry.get_sample_value("handsell_exposure_coverage") == 3 / 100
    assert mean(registry, "handsell_slate_repeat_rate") == 0.5


def test_only_the_latest_users_are_remembered(shelf, monkeypatch):
    monkeypatch.setattr(slate_metrics, "USERS", 2)
    registry = CollectorRegistry()
    watch = SlateMetrics(registry)
    for user in ("a", "b", "c", "a"):
        watch.record("home", user, np.array([1, 2], np.int32), 0, shelf)
    assert registry.get_sample_value("handsell_slate_repeat_rate_count", {"surface": "home"}) is None
