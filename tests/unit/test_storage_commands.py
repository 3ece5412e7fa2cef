"""Commands of a deployment in object storage: bundles, backup, restore, erasure, doctor; what storage refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext

import pytest

from backed_up_shop import publish_bundle, write_shop
from handsell.bundles.opening import open_bundles
from handsell.cli.app import main
from handsell.config import Config, load_config
from handsell.core.errors import ConfigError
from handsell.core.paths import Layout
from handsell.doctor.setting_checks import find_storage_problems
from handsell.events.compacted_files import count_rows, list_ranges
from handsell.experiments.state import open_states
from handsell.jobs import pipeline
from handsell.maintenance.backup import back_up
from handsell.maintenance.backup_manifest import BackupError
from handsell.maintenance.restore import restore
from handsell.storage.objects import Objects
from handsell.storage.published_state import FILES, open_published_state
from s3_server import S3Server


@pytest.fixture
def shop(s3, tmp_path, monkeypatch):
    """A deployment whose bundles and data are in object storage, and in the state folder of the machine `here`."""
    monkeypatch.setenv("HANDSELL_STORAGE", s3.create_folder())
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "here"))
    config = write_shop(tmp_path / "shop")
    open_published_state(config).push()
    return config


def run(monkeypatch, *arguments: str) -> int:
    """Run the command line in this process; return the exit status."""
    monkeypatch.setattr(sys, "argv", ["handsell", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_bundles_are_listed_promoted_and_rolled_back_from_another_machine(shop, tmp_path, monkeypatch, capsys):
    former, live = open_bundles(shop).pointer().previous[-1], open_bundles(shop).live()
    newest = publish_bundle(open_bundles(shop), 9)
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "there"))
    assert run(monkeypatch, "bundles", "list", str(shop.source)) == 0
    printed = capsys.readouterr().out
    assert all(bundle in printed for bundle in (former, live, newest))
    monkeypatch.setattr("handsell.local.service.wait_for_switch", lambda *_: "")
    assert run(monkeypatch, "bundles", "promote", str(shop.source), newest) == 0
    assert open_bundles(shop).live() == newest
    assert run(monkeypatch, "bundles", "rollback", str(shop.source)) == 0
    assert open_bundles(shop).live() == live


def test_a_backup_of_one_machine_is_restored_in_object_storage(shop, tmp_path, monkeypatch, s3):
    open_states(shop).stop_arm("bolder", "bold", "worse")
    live, states = open_bundles(shop).live(), open_states(shop).read()
    ranges = list_ranges(Layout(shop.state).compacted, "events")
    back_up(shop, tmp_path / "backup")
    monkeypatch.setenv("HANDSELL_STORAGE", s3.create_folder())
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "there"))
    restore(shop, tmp_path / "backup")
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "a third machine"))
    assert open_bundles(shop).live() == live and open_bundles(shop).verify(live).id == live
    assert open_states(shop).read() == states
    open_published_state(shop).pull()
    assert list_ranges(Layout(shop.state).compacted, "events") == ranges and count_rows(ranges) > 0
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "a fourth machine"))
    with pytest.raises(BackupError, match="holds a deployment: `handsell restore CONFIG DIR --replace` replaces"):
        restore(shop, tmp_path / "backup")
    newest = publish_bundle(open_bundles(shop), 9)
    open_bundles(shop).promote(newest)
    restore(shop, tmp_path / "backup", replace=True)
    assert open_bundles(shop).live() == live


def test_an_erased_person_is_in_no_object(shop, monkeypatch, tmp_path, capsys):
    objects = Objects(str(shop.storage_uri))

    def find_person() -> list[str]:
        """Names of the objects that have the id in an uncompressed page of Parquet, or in text."""
        return [one.name for one in objects.list(FILES) if b"u1" in objects.read(one.name).content]

    assert find_person()
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "here"))
    status = run(monkeypatch, "erase", str(shop.source), "u1")
    assert find_person() == [], capsys.readouterr()
    assert status == 0
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "there"))
    open_published_state(shop).pull()
    assert list_ranges(Layout(shop.state).compacted, "events")


def test_the_doctor_tries_object_storage(shop, monkeypatch):
    assert list(find_storage_problems(shop)) == []
    monkeypatch.setenv("HANDSELL_STORAGE", "s3://no-such-bucket/handsell")
    (found,) = find_storage_problems(shop)
    assert found.severity == "error" and "the bucket does not exist: create it" in found.message


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({"HANDSELL_STORAGE": "s3://no-such-bucket/handsell"}, "the bucket does not exist: create it, or correct"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "it cannot be reached: check the network and AWS_ENDPOINT_URL"),
    ],
)
def test_what_storage_refuses_is_one_sentence_and_status_2(shop, monkeypatch, capsys, variables, cause):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for command in (["bundles", "list"], ["compact"], ["clean"]):
        assert run(monkeypatch, *command, str(shop.source)) == 2
        printed = capsys.readouterr()
        assert cause in printed.err + printed.out and "Traceback" not in printed.err + printed.out


def test_wrong_keys_are_one_sentence_and_status_2(shop, monkeypatch, capsys):
    strict = S3Server(INITIAL_NO_AUTH_ACTION_COUNT="1")  # requires valid keys after the bucket has been created
    try:
        strict.start()
        strict.create_bucket()
        monkeypatch.setenv("AWS_ENDPOINT_URL", strict.address)
        assert run(monkeypatch, "bundles", "list", str(shop.source)) == 2
        printed = capsys.readouterr()
        assert "the access key is unknown: check AWS_ACCESS_KEY_ID" in printed.err + printed.out
    finally:
        strict.stop()


def test_a_wrong_address_is_an_error_of_the_config(shop, monkeypatch):
    monkeypatch.setenv("HANDSELL_STORAGE", "ftp://bucket")
    with pytest.raises(ConfigError, match=r"\$HANDSELL_STORAGE: expected a bucket and a folder"):
        assert load_config(shop.source).storage_uri
    monkeypatch.setenv("HANDSELL_STORAGE", "none")
    assert load_config(shop.source).storage_uri is None


def test_a_training_that_is_killed_goes_on_elsewhere_from_its_last_complete_step(shop, tmp_path, monkeypatch):
    ran: list[str] = []

    def run_on(machine: str, killed_in: str = "") -> None:
        """Run the pipeline with steps that write a file each, which does not exist on a new machine."""

        def step(name: str, folder: str) -> Callable[[Config], str]:
            def write(config: Config) -> str:
                if name == killed_in:
                    raise KeyboardInterrupt
                ran.append(f"{machine} {name}")
                path = config.state / folder / f"{name}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(name)
                return name

            return write

        def is_unchanged(config: Config, name: str) -> bool:
            return (config.state / name / f"{name}.parquet").is_file()

        monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / machine))
        steps = {"data": step("data", "data"), "features": step("features", "features")}
        monkeypatch.setattr(pipeline, "STEPS", steps | {"apply": step("apply", "apply")})
        monkeypatch.setattr(pipeline.steps, "is_unchanged", is_unchanged)
        pipeline.run_pipeline(shop)

    monkeypatch.setattr(pipeline, "open_cluster", lambda _: nullcontext())
    monkeypatch.setattr(pipeline, "train", lambda *_: "trained")
    monkeypatch.setattr(pipeline, "_clean", lambda _: "")
    with pytest.raises(KeyboardInterrupt):
        run_on("first", killed_in="apply")
    run_on("second")
    assert ran == ["first data", "first features", "second data", "second apply"]
    assert (shop.state / "features" / "features.parquet").read_text() == "features"
