"""Damaged bundles are refused by name, and the live bundle stays live."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from handsell.bundles.manifest import MANIFEST, VERSION, Manifest
from handsell.bundles.store import POINTER, BundleStore
from handsell.core.errors import BundleError


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path)


def add(store: BundleStore, number: int) -> str:
    staging = store.new_dir()
    (staging / "ranker").mkdir()
    (staging / "ranker" / "ranker.ubj").write_bytes(bytes([number]) * 1000)
    (staging / "config.json").write_text("{}")
    manifest = Manifest(
        config="world", created_us=number * 1_000_000, data_start_us=0, data_end_us=1,
        feature_service="ranking_v1", features=("a",), sources=("als",),
    )  # fmt: skip
    return store.publish(staging, manifest)


def truncate(folder: Path) -> None:
    (folder / "ranker" / "ranker.ubj").write_bytes(b"\x02" * 400)


def lengthen(folder: Path) -> None:
    (folder / "ranker" / "ranker.ubj").write_bytes(b"\x02" * 1001)


def flip_a_bit(folder: Path) -> None:
    (folder / "ranker" / "ranker.ubj").write_bytes(b"\x02" * 999 + b"\x03")


def lose_a_file(folder: Path) -> None:
    (folder / "ranker" / "ranker.ubj").unlink()


def add_a_file(folder: Path) -> None:
    (folder / "ranker" / "surprise.pkl").write_bytes(b"?")


def put_a_link(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/etc/hostname")


def lose_the_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def cut_the_manifest(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[: len(text) // 2])


def edit(**changes):
    def change(folder: Path) -> None:
        raw = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps({**raw, **changes}))

    return change


DAMAGE = {
    "truncated": (truncate, r"ranker/ranker\.ubj is truncated: expected 1000 bytes, got 400"),
    "too long": (lengthen, r"ranker/ranker\.ubj is too long: expected 1000 bytes, got 1001"),
    "corrupt": (flip_a_bit, r"ranker/ranker\.ubj is corrupt: expected SHA-256 .*, got .*"),
    "missing": (lose_a_file, r"expected file ranker/ranker\.ubj, it is missing"),
    "extra": (add_a_file, r"ranker/surprise\.pkl is not in the manifest"),
    "link": (put_a_link, r"config\.json is a link"),
    "no manifest": (lose_the_manifest, "the bundle is incomplete"),
    "half a manifest": (cut_the_manifest, r"manifest\.json: expected JSON"),
    "not an object": (lambda folder: (folder / MANIFEST).write_text("[]"), "got version None"),
    "newer": (
        edit(version=VERSION + 1),
        f"expected version {VERSION}, got version {VERSION + 1}: use the handsell that",
    ),
    "unknown key": (edit(pickle="yes"), r"pickle: Extra inputs are not permitted"),
    "wrong type": (edit(features=7), r"manifest\.json: features"),
    "no hash": (edit(files={"a": {"size": 1, "sha256": "?"}}), r"files\.a\.sha256"),
    "outside": (edit(files={"../a": {"size": 1, "sha256": "0" * 64}}), "is outside the bundle"),
    "another's": (edit(id="20200101t000000-00000000"), "rename the folder"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_bundle_is_refused_by_name_and_the_live_one_stays(store, case):
    damage, message = DAMAGE[case]
    good, bad = add(store, 1), add(store, 2)
    store.promote(good)
    damage(store.local_path(bad))
    with pytest.raises(BundleError, match=message) as raised:
        store.promote(bad)
    assert bad in str(raised.value) and ": " in str(raised.value)
    assert store.live() == good


@pytest.mark.parametrize("bundle_id", ["", ".", "..", "../../etc", "/etc", "a/b", "nope", ".lock"])
def test_an_unknown_id_is_refused_and_the_newest_are_named(store, bundle_id):
    known = add(store, 1)
    with pytest.raises(BundleError, match=f"is not in .*{known}"):
        store.show(bundle_id)


def test_rollback_skips_a_broken_predecessor(store):
    a, b, c = (add(store, n) for n in (1, 2, 3))
    for bundle_id in (a, b, c):
        store.promote(bundle_id)
    flip_a_bit(store.local_path(b))
    assert store.rollback() == a


def test_rollback_without_a_valid_predecessor_changes_nothing(store):
    a, b = add(store, 1), add(store, 2)
    store.promote(a)
    store.promote(b)
    shutil.rmtree(store.local_path(a))
    with pytest.raises(BundleError, match=f"{a}.* is not in"):
        store.rollback()
    assert store.live() == b


@pytest.mark.parametrize("content", ["", "{", "[]", '{"live": null}'])
def test_a_broken_pointer_is_an_error_and_not_an_empty_store(store, tmp_path, content):
    store.promote(add(store, 1))
    (tmp_path / POINTER).write_text(content)
    with pytest.raises(BundleError, match=r"live\.json: .* remove it and promote a bundle"):
        store.live()


def test_a_crash_between_the_files_and_the_manifest_leaves_no_bundle(store, monkeypatch):
    good = add(store, 1)
    store.promote(good)

    def crash(self, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Manifest, "write", crash)
        with pytest.raises(KeyboardInterrupt):
            add(store, 2)
    assert store.list() == [good] and store.live() == good


def test_a_crash_while_the_pointer_is_replaced_leaves_the_old_one(store, monkeypatch):
    a, b = add(store, 1), add(store, 2)
    store.promote(a)

    def crash(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            store.promote(b)
    assert store.live() == a
    store.promote(b)
    assert store.live() == b
