"""The published part of the state folder: pull, push, interruption, conflicts, what nothing lists any more."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from handsell.core.errors import DataError, StorageError
from handsell.storage import published_state
from handsell.storage.objects import Objects
from handsell.storage.published_state import FILES, KEYS, PublishedState

FIRST = {
    "data/meta.json": "1",
    "data/keys/part-00000.npy": "k",
    "compacted/ranges/events/1-2.json": "r",
    "runs/x": "own",
}


class Machine:
    """A state folder on a machine of its own."""

    def __init__(self, uri: str, folder: Path):
        self.uri, self.folder = uri, folder
        self.state = PublishedState(uri, folder)

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # as the jobs do: a new file replaces the old one
            path.write_text(text)

    def read(self) -> dict[str, str]:
        names = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        found = {path.relative_to(self.folder).as_posix(): path for path in names}
        return {name: path.read_text() for name, path in found.items() if not name.startswith(".published")}

    def list_contents(self) -> set[str]:
        return {one.name for one in Objects(self.uri).list(FILES)}


@pytest.fixture
def machines(s3, tmp_path) -> tuple[Machine, Machine]:
    uri = s3.create_folder()
    return Machine(uri, tmp_path / "here"), Machine(uri, tmp_path / "there")


def test_another_machine_gets_what_was_pushed_with_its_times(machines):
    here, there = machines
    here.write(FIRST)
    os.utime(here.folder / "compacted/ranges/events/1-2.json", (1_000, 1_000))
    assert here.state.push() == ["data", KEYS, "compacted"] and here.state.push() == []
    assert there.state.pull() == ["data", KEYS, "compacted"] and there.state.pull() == []
    assert there.read() == {name: text for name, text in FIRST.items() if name != "runs/x"}
    assert (there.folder / "compacted/ranges/events/1-2.json").stat().st_mtime == 1_000


def test_serving_pulls_the_keys_alone_and_keeps_them_when_they_are_unchanged(machines):
    here, there = machines
    here.write(FIRST)
    here.state.push()
    assert there.state.pull([KEYS]) == [KEYS] and list(there.read()) == ["data/keys/part-00000.npy"]
    here.write({"data/meta.json": "2"})
    here.state.push()
    assert there.state.pull([KEYS]) == []
    assert there.state.pull() == ["data", "compacted"]
    assert there.read()["data/meta.json"] == "2" and there.read()["data/keys/part-00000.npy"] == "k"


def test_only_changed_files_travel(machines, monkeypatch):
    here, there = machines
    here.write(FIRST)
    here.state.push()
    there.state.pull()
    here.write({"compacted/ranges/events/3-4.json": "new"})
    moved = []
    upload, download = Objects.upload, Objects.download
    monkeypatch.setattr(Objects, "upload", lambda *call: (moved.append(call[1]), upload(*call)))
    monkeypatch.setattr(Objects, "download", lambda *call: (moved.append(call[1]), download(*call)))
    assert here.state.push() == ["compacted"] and there.state.pull() == ["compacted"]
    assert len(moved) == 2 and moved[0] == moved[1]
    assert there.read()["compacted/ranges/events/1-2.json"] == "r"


def test_a_push_that_is_killed_changes_nothing_for_others(machines, monkeypatch):
    here, there = machines
    here.write(FIRST)
    here.state.push()
    here.write({"data/meta.json": "2", "features/a.parquet": "f"})
    with monkeypatch.context() as patch:
        patch.setattr(Objects, "write_if_same", lambda *_: (_ for _ in ()).throw(StorageError("killed")))
        with pytest.raises(StorageError):
            here.state.push()
    there.state.pull()
    assert there.read()["data/meta.json"] == "1" and "features/a.parquet" not in there.read()
    assert here.state.push() == ["data", "features"]
    there.state.pull()
    assert there.read()["data/meta.json"] == "2"


def test_a_pull_that_is_killed_is_repeated(machines, monkeypatch):
    here, there = machines
    here.write(FIRST)
    here.state.push()
    there.state.pull()
    here.write({"data/meta.json": "2"})
    here.state.push()
    rename, steps = Path.rename, 3  # the inner part to the draft, the old folder aside, the new one into its place
    for killed_before in range(steps):
        calls = []

        def rename_or_end(path, target):
            if len(calls) == killed_before:  # noqa: B023
                raise KeyboardInterrupt
            calls.append(path)  # noqa: B023
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename_or_end)
            with pytest.raises(KeyboardInterrupt):
                Machine(there.uri, there.folder).state.pull()
        Machine(there.uri, there.folder).state.pull()
        assert there.read()["data/meta.json"] == str(killed_before + 2)
        assert there.read()["data/keys/part-00000.npy"] == "k" and Machine(there.uri, there.folder).state.push() == []
        here.write({"data/meta.json": str(killed_before + 3)})
        here.state.push()


def test_a_lost_part_is_pulled_again_and_never_pushed_as_empty(machines):
    here, _ = machines
    here.write(FIRST)
    here.state.push()
    (here.folder / "data/keys/part-00000.npy").unlink()
    assert here.state.pull() == [KEYS]
    assert here.read() == FIRST


def test_of_two_jobs_that_change_the_same_part_the_second_is_refused(machines):
    here, there = machines
    here.write(FIRST)
    here.state.push()
    there.state.pull()
    here.write({"data/meta.json": "here"})
    there.write({"data/meta.json": "there", "features/a.parquet": "f"})
    here.state.push()
    with pytest.raises(StorageError, match="another job has changed 'data' meanwhile: run the command again"):
        there.state.push()
    assert there.state.push(["features"]) == ["features"]  # other parts do not collide
    assert there.state.pull() == ["data"] and there.read()["data/meta.json"] == "here"


def test_jobs_that_change_different_parts_at_once_both_count(machines):
    here, there = machines
    here.write({"features/a": "1"})
    there.write({"compacted/b": "2"})
    threads = [threading.Thread(target=machine.state.push) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for machine in machines:
        machine.state.pull()
        assert machine.read() == {"compacted/b": "2", "features/a": "1"}


def test_replaced_and_unlisted_contents_are_deleted(machines):
    here, _ = machines
    here.write({"data/meta.json": "a person"})
    here.state.push()
    (old,) = here.list_contents()
    here.write({"data/meta.json": "nobody"})
    here.state.push()
    assert old not in here.list_contents() and len(here.list_contents()) == 1
    Objects(here.uri).write(f"{FILES}/0123", b"left by a killed job")
    assert here.state.remove_unlisted() == 1
    assert here.state.remove_unlisted(older_s=-5) == 0 and len(here.list_contents()) == 1


def test_a_pull_meets_a_push_that_deletes_what_it_reads(machines, monkeypatch):
    here, there = machines
    here.write({"data/meta.json": "1"})
    here.state.push()
    download, pushed = Objects.download, []

    def push_first(objects, name, path):
        if not pushed:
            pushed.append(name)
            here.write({"data/meta.json": "2"})
            here.state.push()
        download(objects, name, path)

    monkeypatch.setattr(Objects, "download", push_first)
    assert there.state.pull() == ["data"] and there.read() == {"data/meta.json": "2"}


def test_missing_and_damaged_contents_are_named(machines):
    here, there = machines
    here.write({"data/meta.json": "1"})
    here.state.push()
    (name,) = here.list_contents()
    Objects(here.uri).write(name, b"x")
    with pytest.raises(DataError, match=r"data/meta\.json is damaged: restore a backup"):
        there.state.pull()
    Objects(here.uri).delete([name])
    with pytest.raises(DataError, match=r"lacks files/.*, which state\.json lists: restore a backup, or remove"):
        there.state.pull()
    Objects(here.uri).write(published_state.STATE, b"{")
    with pytest.raises(DataError, match=r"expected the list of published files in state\.json, got"):
        there.state.pull()


def test_without_object_storage_nothing_happens(tmp_path):
    state = PublishedState(None, tmp_path / "none")
    assert state.pull() == state.push() == [] and state.remove_unlisted() == 0 and state.is_empty()
    assert not (tmp_path / "none").exists()
