"""Bundles in object storage: several machines, interrupted uploads, two promoters, an outage, a damaged cache."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from test_bundle_store import add, draft

from handsell.bundles.manifest import MANIFEST
from handsell.bundles.object_storage import KEPT, ObjectStorage
from handsell.bundles.store import POINTER, BundleStore
from handsell.core.errors import BundleError, StorageError
from handsell.experiments.state import StateFile
from handsell.storage.config import check_storage_uri
from handsell.storage.objects import ObjectChanged, Objects
from s3_server import BUCKET


class Machines:
    """Bundle stores of several machines, each with a cache of its own, on one folder of an S3 server."""

    def __init__(self, uri: str, folder: Path):
        self.uri, self.folder, self.objects = uri, folder, Objects(uri)

    def open(self, name: str, keeps_last: bool = False) -> BundleStore:
        return BundleStore(ObjectStorage(Objects(self.uri), self.folder / name, keeps_last))


@pytest.fixture
def machines(s3, tmp_path) -> Machines:
    return Machines(s3.create_folder(), tmp_path)


def test_another_machine_fetches_a_bundle_once(machines, monkeypatch):
    here, there = machines.open("here"), machines.open("there")
    bundle_id = add(here, 1)
    here.promote(bundle_id)
    assert there.live() == bundle_id
    assert there.verify(bundle_id) == here.show(bundle_id)
    assert there.local_path(bundle_id) == machines.folder / "there" / bundle_id
    monkeypatch.setattr(Objects, "download", lambda *_: pytest.fail("it is fetched already"))
    there.verify(bundle_id)


def test_a_manifest_is_read_without_the_files(machines, monkeypatch):
    bundle_id = add(machines.open("here"), 1)
    monkeypatch.setattr(Objects, "download", lambda *_: pytest.fail("only the manifest is needed"))
    assert machines.open("there").show(bundle_id).id == bundle_id


def test_an_upload_that_is_killed_half_way_is_invisible_and_can_be_repeated(machines, monkeypatch):
    upload = Objects.upload

    def fail_at_the_manifest(objects, name, path):
        if name.endswith(MANIFEST):
            raise StorageError("killed")
        upload(objects, name, path)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "upload", fail_at_the_manifest)
        with pytest.raises(StorageError):
            add(machines.open("here"), 1)
    assert [one.name.split("/")[1] for one in machines.objects.list()] == ["ranker", "report.json"]
    assert machines.open("there").list() == []
    bundle_id = add(machines.open("here"), 1)
    assert machines.open("there").list() == [bundle_id]


def test_files_of_an_interrupted_upload_are_removed_after_a_day(machines, monkeypatch):
    store = machines.open("here")
    bundle_id = add(store, 1)
    machines.objects.write("20250615t000000-00000000/report.json", b"{}")
    store.prune(keep=1)
    assert len(list(machines.objects.list("20250615t000000-00000000"))) == 1
    monkeypatch.setattr("handsell.bundles.object_storage.UNFINISHED_S", -5.0)
    store.prune(keep=1)
    assert list(machines.objects.list("20250615t000000-00000000")) == []
    assert machines.open("there").verify(bundle_id).id == bundle_id


def test_of_two_gates_that_compared_with_the_same_bundle_one_promotes(machines):
    stores = [machines.open("here"), machines.open("there")]
    live, *bundles = (add(stores[0], n) for n in range(3))
    stores[0].promote(live)
    outcomes: dict[str, str] = {}

    def promote(store: BundleStore, bundle_id: str) -> None:
        try:
            store.promote(bundle_id, instead_of=live)
            outcomes[bundle_id] = "promoted"
        except BundleError as error:
            outcomes[bundle_id] = str(error)

    threads = [threading.Thread(target=promote, args=pair) for pair in zip(stores, bundles, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = (bundle for bundle, outcome in outcomes.items() if outcome == "promoted")
    (refused,) = (outcome for outcome in outcomes.values() if outcome != "promoted")
    assert f"was compared with {live}, and {winner} has become live meanwhile" in refused
    assert stores[1].pointer().live == winner and stores[1].pointer().previous == (live,)


def test_promotions_by_hand_at_the_same_time_are_both_in_the_history(machines):
    stores = [machines.open(f"m{n}") for n in range(4)]
    bundles = [add(stores[0], n) for n in range(4)]
    threads = [
        threading.Thread(target=store.promote, args=(bundle,)) for store, bundle in zip(stores, bundles, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pointer = stores[0].pointer()
    assert sorted((*pointer.previous, pointer.live)) == sorted(bundles)


def test_a_writer_that_has_read_an_older_version_is_refused(machines):
    machines.objects.write("a", b"1")
    known = machines.objects.read("a")
    machines.objects.write_if_same("a", b"2", known)
    for late in (known, None):
        with pytest.raises(ObjectChanged, match="another process has written a meanwhile"):
            machines.objects.write_if_same("a", b"3", late)
    assert machines.objects.read("a").content == b"2"


def test_what_is_being_removed_cannot_be_promoted(machines, monkeypatch):
    store, other = machines.open("here"), machines.open("there")
    old, new = add(store, 1), add(store, 2)
    other.verify(old)
    monkeypatch.setattr(ObjectStorage, "remove", lambda *_: None)  # slow
    assert store.prune(keep=1) == (old,)
    with pytest.raises(BundleError, match="is being removed"):
        other.promote(old)
    other.promote(new)


def test_a_damaged_copy_in_the_cache_is_fetched_again(machines):
    here, there = machines.open("here"), machines.open("there")
    bundle_id = add(here, 1)
    (there.local_path(bundle_id) / "ranker" / "ranker.ubj").write_bytes(b"damaged")
    assert there.verify(bundle_id) == here.show(bundle_id)
    assert (there.local_path(bundle_id) / "ranker" / "ranker.ubj").read_bytes() == bytes([1]) * 100


def test_a_bundle_that_is_damaged_in_object_storage_is_refused(machines):
    bundle_id = add(machines.open("here"), 1)
    machines.objects.write(f"{bundle_id}/ranker/ranker.ubj", b"\x02" * 100)
    with pytest.raises(BundleError, match=r"ranker/ranker\.ubj is corrupt"):
        machines.open("there").local_path(bundle_id)
    assert not (machines.folder / "there" / bundle_id).exists()


def test_the_cache_drops_bundles_that_nobody_names(machines):
    here, there = machines.open("here"), machines.open("there", keeps_last=True)
    bundles = [add(here, n) for n in range(KEPT + 3)]
    here.promote(bundles[0])
    for bundle_id in bundles:
        assert there.live() == bundles[0]
        there.verify(bundle_id)
    cached = {path.parent.name for path in (machines.folder / "there").glob(f"*/{MANIFEST}")}
    assert bundles[0] in cached and len(cached) <= KEPT + 2


def test_serving_goes_on_from_the_cache_while_storage_is_away(own_s3, tmp_path):
    machines = Machines(own_s3.create_folder(), tmp_path)
    strict, serving = machines.open("strict"), machines.open("serving", keeps_last=True)
    first, second = add(strict, 1), add(strict, 2)
    strict.promote(first)
    StateFile(strict._storage).stop_arm("bolder", "bold", "broken")
    states = StateFile(ObjectStorage(Objects(machines.uri), tmp_path / "serving", keeps_last=True))
    assert serving.live() == first and serving.verify(first).id == first and states.read().experiments
    kept = own_s3.kill()
    replica = machines.open("serving", keeps_last=True)  # of the same machine, started while storage is away
    for store in (serving, replica):
        assert store.live() == first and store.verify(first).id == first
    assert StateFile(replica._storage).read() == states.read()
    empty = machines.open("a new machine", keeps_last=True)
    for call in (strict.live, lambda: strict.promote(second), strict.list, lambda: replica.promote(first), empty.live):
        with pytest.raises(StorageError, match="cannot be reached"):
            call()
    own_s3.start_again({})  # it lacks the pointer
    assert serving.live() is None
    own_s3.kill()
    assert machines.open("serving", keeps_last=True).live() == first
    own_s3.start_again(kept)
    strict.promote(second)
    assert serving.live() == second == replica.live()


def test_the_errors_of_storage_are_sentences(s3, monkeypatch):
    with pytest.raises(StorageError, match=r"^object storage s3://none/folder: the bucket does not exist: create it"):
        Objects("s3://none/folder").check()
    with pytest.raises(StorageError, match="the bucket does not exist"):
        Objects("s3://none").read("a")
    with pytest.raises(StorageError, match="the bucket does not exist"):
        Objects("s3://none").write("a", b"")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"cannot be reached: check the network and AWS_ENDPOINT_URL$"):
        Objects(f"s3://{BUCKET}").check()


@pytest.mark.parametrize("uri", ["bucket", "ftp://bucket/a", "s3://", "s3://bucket?x=1", "s3://bucket/a b"])
def test_an_address_of_no_bucket_is_refused(uri):
    with pytest.raises(ValueError, match="expected a bucket and a folder, such as s3://bucket/handsell"):
        check_storage_uri(uri)
    assert check_storage_uri("gs://bucket/a/") == "gs://bucket/a"


def test_the_pointer_is_plain_json(machines):
    store = machines.open("here")
    bundle_id = add(store, 1)
    store.promote(bundle_id)
    found = json.loads(machines.objects.read(POINTER).content)
    assert (found["live"], found["previous"], found["removed"]) == (bundle_id, [], [])


def test_a_shard_fetches_its_own_files_only(machines):
    here, there = machines.open("here"), machines.open("there")
    staging = here.new_dir()
    for shard in range(3):
        (staging / f"shard-{shard}").mkdir()
        (staging / f"shard-{shard}" / "vectors").write_bytes(bytes([shard]) * 50)
    bundle_id = here.publish(staging, draft(1_750_000_000_000_000))

    def is_own(file: str) -> bool:
        return file.startswith("shard-1/")

    about, folder = there.verify_part(bundle_id, "shard-1", is_own)
    assert len(about.files) == 3 and sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        MANIFEST,
        "vectors",
    ]
    (folder / "shard-1" / "vectors").write_bytes(b"damaged")
    assert there.verify_part(bundle_id, "shard-1", is_own) == (about, folder)
    assert (folder / "shard-1" / "vectors").read_bytes() == b"\1" * 50
    assert there.local_path(bundle_id) != folder and there.verify(bundle_id) == about
    assert there.verify_part(bundle_id, "shard-1", is_own)[1] == there.local_path(bundle_id)
    with pytest.raises(BundleError, match="is not in"):
        there.verify_part("20990101t000000-00000000", "shard-1", is_own)
