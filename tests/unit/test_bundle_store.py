"""The bundle store: publish, promote, roll back and prune, in a folder and in object storage."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from handsell.bundles.config import GateConfig
from handsell.bundles.gate import BundleScores
from handsell.bundles.manifest import MANIFEST, Manifest, read_library_versions
from handsell.bundles.object_storage import ObjectStorage
from handsell.bundles.storage import lock_folder
from handsell.bundles.store import BundleStore
from handsell.core.errors import BundleError
from handsell.jobs.train import publication
from handsell.local.bundles import bundle_table
from handsell.storage.objects import Objects


def draft(created_us: int = 1_750_000_000_000_000, **changes) -> Manifest:
    return Manifest(
        config="world", created_us=created_us, data_start_us=1, data_end_us=2, feature_service="ranking_v1",
        features=("item_age_days", "src_als_rank"), sources=("als",), metrics={"ndcg@10": 0.1}, **changes,
    )  # fmt: skip


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path: Path) -> BundleStore:
    if request.param == "folder":
        return BundleStore(tmp_path / "bundles")
    uri = request.getfixturevalue("s3").create_folder()
    return BundleStore(ObjectStorage(Objects(uri), tmp_path / "cache"))


def add(store: BundleStore, number: int) -> str:
    staging = store.new_dir()
    (staging / "ranker").mkdir()
    (staging / "ranker" / "ranker.ubj").write_bytes(bytes([number]) * 100)
    (staging / "report.json").write_text("{}")
    return store.publish(staging, draft(1_750_000_000_000_000 + number * 1_000_000))


def test_a_published_bundle_is_listed_shown_and_verified(store):
    assert store.list() == [] and store.live() is None
    bundle_id = add(store, 1)
    assert store.list() == [bundle_id]
    shown = store.show(bundle_id)
    assert shown.features == ("item_age_days", "src_als_rank") and shown.id == bundle_id
    assert set(shown.files) == {"ranker/ranker.ubj", "report.json"}
    assert store.verify(bundle_id) == shown
    assert (store.local_path(bundle_id) / "ranker" / "ranker.ubj").read_bytes() == b"\x01" * 100


def test_ids_begin_with_the_time_and_sort_by_it(store):
    ids = [add(store, n) for n in (3, 1, 2)]
    assert store.list() == sorted(ids) == [ids[1], ids[2], ids[0]]
    assert ids[1].startswith("20250615t")


def test_a_staging_folder_is_not_a_bundle(store):
    staging = store.new_dir()
    (staging / "ranker.ubj").write_bytes(b"half")
    assert store.list() == []
    with pytest.raises(BundleError, match="is not in"):
        store.promote(staging.name)


def test_publishing_the_same_again_gives_the_same_bundle(store):
    assert add(store, 1) == add(store, 1)
    assert len(store.list()) == 1


def test_an_empty_bundle_is_refused(store):
    with pytest.raises(BundleError, match="got none"):
        store.publish(store.new_dir(), draft())


def test_promote_and_roll_back(store):
    a, b, c = (add(store, n) for n in (1, 2, 3))
    for bundle_id in (a, b, c, c):
        store.promote(bundle_id)
        assert store.live() == bundle_id
    assert store.pointer().previous == (a, b)
    assert store.rollback() == b and store.live() == b
    assert store.rollback() == a and store.live() == a
    with pytest.raises(BundleError, match="there is none: promote one"):
        store.rollback()
    assert store.live() == a


def test_prune_keeps_the_newest_the_live_one_and_its_predecessor(store):
    a, b, c, d, e = (add(store, n) for n in range(1, 6))
    store.promote(a)
    store.promote(b)
    assert store.prune(keep=1) == (c, d)
    assert store.list() == [a, b, e] and store.live() == b
    assert store.rollback() == a
    with pytest.raises(BundleError, match="at least 1"):
        store.prune(keep=0)


@pytest.mark.parametrize(("rollbacks", "kept"), [(0, "cd"), (1, "bcd"), (2, "abcd"), (9, "abcd")])
def test_prune_keeps_as_many_earlier_live_bundles_as_it_is_told(store, rollbacks, kept):
    bundles = {name: add(store, n) for n, name in enumerate("abcd", 1)}
    for name in "abc":
        store.promote(bundles[name])
    store.prune(keep=1, rollbacks=rollbacks)
    assert store.list() == [bundles[name] for name in kept]


def test_prune_clears_only_old_staging_folders(store):
    old, fresh = store.new_dir(), store.new_dir()
    os.utime(old, (1, 1))
    store.prune(keep=1)
    assert not old.exists() and fresh.exists()


def test_only_one_promotes_at_a_time(tmp_path: Path):
    store = BundleStore(tmp_path, lock_wait_s=0.05)
    bundle_id = add(store, 1)
    with lock_folder(tmp_path), pytest.raises(BundleError, match="another process"):
        store.promote(bundle_id)
    store.promote(bundle_id)
    assert store.live() == bundle_id


def test_metrics_without_a_value_are_left_out():
    assert draft().model_copy() == draft()
    manifest = Manifest(**{**draft().model_dump(), "metrics": {"a": float("nan"), "b": 1.0}})
    assert manifest.metrics == {"b": 1.0}


def test_the_manifest_is_plain_json(tmp_path: Path):
    store = BundleStore(tmp_path)
    raw = json.loads((store.local_path(add(store, 1)) / MANIFEST).read_text())
    assert (
        raw["version"] == 3 and raw["metrics_of"] == "holdout" and raw["features"] == ["item_age_days", "src_als_rank"]
    )


def test_library_versions_are_those_installed():
    assert {"numpy", "pyarrow"} <= set(read_library_versions())


def age(store: BundleStore, bundle_id: str) -> None:
    """Make a bundle one of the former format, whose ids are fixed-width."""
    path = store.local_path(bundle_id) / MANIFEST
    old = json.dumps({**json.loads(path.read_text()), "version": 2})
    path.write_text(old)
    store._storage.write(f"{bundle_id}/{MANIFEST}", old.encode())


def test_a_bundle_of_another_version_is_refused_in_one_sentence_and_listed(store):
    old, new = add(store, 1), add(store, 2)
    age(store, old)
    with pytest.raises(
        BundleError, match=r"expected version 3, got version 2: use the handsell that wrote it, or train"
    ):
        store.verify(old)
    console = Console(width=200, record=True)
    console.print(bundle_table(store))
    text = console.export_text()
    assert new in text and old in text and "unreadable" in text and "expected version 3" in text


def test_training_replaces_a_live_bundle_that_it_cannot_read(store, monkeypatch):
    old = add(store, 1)
    store.promote(old)
    age(store, old)
    scores = BundleScores(np.full(3, 0.1), 0.5)
    monkeypatch.setattr(publication, "extract_scores", lambda model: scores)
    replay = SimpleNamespace(models={publication.FUNNEL: None}, user=np.arange(3))
    run = SimpleNamespace(config=SimpleNamespace(gate=GateConfig()))
    decision = publication.compare_with_live(run, replay, store)
    assert decision.passed and "cannot be read" in decision.sentences[0]
    assert "expected version 3, got version 2" in decision.warnings[0]
