"""Item values of a run's candidates are fetched from Feast once per item and day."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from handsell.core.paths import Layout
from handsell.features import store
from handsell.features.registry import find_features
from handsell.jobs.train import examples
from handsell.testing.small_catalog import draw_snapshot

ITEM_FEATURES = tuple(find_features("item"))

DAY_US = examples.DAY_US
WINDOWS = ("ranker", "test", "served")


@pytest.fixture
def run(tmp_path, rng, monkeypatch):
    """A run's folder whose Feast answers item · 100 + day, and the (item, day) pairs that it was asked."""
    shelf, asked = draw_snapshot(rng), []
    shelf.save(Layout(tmp_path).snapshot)

    def historical_items(ids, times):
        numbers = shelf.items.number(ids)
        asked.append(sorted(zip(numbers.tolist(), (times // DAY_US).tolist(), strict=True)))
        return {name: pa.chunked_array([numbers * 100.0 + times // DAY_US]) for name in ITEM_FEATURES}

    monkeypatch.setattr(store, "open_store", lambda config: SimpleNamespace(historical_items=historical_items))
    config = SimpleNamespace(state=tmp_path, features=SimpleNamespace(item_columns=()))
    return SimpleNamespace(config=config, folder=tmp_path, asked=asked)


def found(run, *pairs):
    folder = run.folder / "candidates" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "000000000.npz", pairs=np.array(pairs, np.int64))
    return examples.fetch_item_values(run.config, run.folder, ("test",))


def test_only_new_pairs_are_fetched_and_all_are_kept(run):
    assert found(run, (1, 7), (2, 7)) == 2
    assert found(run, (2, 7), (2, 8), (5, 7)) == 2
    assert found(run, (1, 7), (5, 7)) == 0
    assert run.asked == [[(1, 7), (2, 7)], [(2, 8), (5, 7)]]
    shelf = SimpleNamespace(values=np.zeros((30, len(ITEM_FEATURES)), np.float32), value_names=ITEM_FEATURES)
    values = examples.load_item_values(run.config, run.folder, "test", shelf)
    told = values.gather(np.array([[1, 2, 5], [2, -1, 2]]), np.array([7, 8]) * DAY_US)[:, :, 0]
    np.testing.assert_array_equal(told[0], [107, 207, 507])
    np.testing.assert_array_equal(told[1], [208, np.nan, 208])


def test_pairs_of_several_windows_are_fetched_once_and_each_window_gets_its_own(run):
    for window, pairs in {"ranker": [(1, 7), (2, -3)], "test": [(1, 7), (0, 9)]}.items():
        (run.folder / "candidates" / window).mkdir(parents=True)
        np.savez(run.folder / "candidates" / window / "000000000.npz", pairs=np.array(pairs, np.int64))
    (run.folder / "candidates" / "served").mkdir()
    assert examples.fetch_item_values(run.config, run.folder, WINDOWS) == 3
    assert run.asked == [[(0, 9), (1, 7), (2, -3)]]
    days = {window: examples._read_item_days(run.folder / "item_days" / f"{window}.npz") for window in WINDOWS}
    assert {window: list(zip(of.item, of.day, of.values[:, 0], strict=True)) for window, of in days.items()} == {
        "ranker": [(1, 7, 107.0), (2, -3, 197.0)], "test": [(0, 9, 9.0), (1, 7, 107.0)], "served": [],
    }  # fmt: skip
