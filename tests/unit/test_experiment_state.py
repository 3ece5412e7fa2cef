"""The state file of experiments: stopped arms and the canary, in a folder and in object storage."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from handsell.bundles.object_storage import ObjectStorage
from handsell.bundles.storage import LocalStorage
from handsell.core.errors import HandsellError
from handsell.experiments.state import STATE, Canary, ExperimentStates, StateFile
from handsell.storage.objects import Objects


@pytest.fixture(params=["folder", "s3"])
def state(request, tmp_path: Path) -> StateFile:
    if request.param == "folder":
        return StateFile(LocalStorage(tmp_path / "bundles"))
    uri = request.getfixturevalue("s3").create_folder()
    return StateFile(ObjectStorage(Objects(uri), tmp_path / "cache"))


def canary(bundle: str = "b2", **changes) -> Canary:
    about = {"bundle": bundle, "live": "b1", "share": 0.05, "started_us": 1, "duration_s": 60, "min_slates": 10}
    return Canary(**{**about, "margin": 0.2, **changes})


def test_without_a_file_nothing_is_stopped(state):
    assert state.read() == ExperimentStates()
    assert not state.read().is_stopped("bolder") and not state.read().stopped_arms("bolder")
    assert state.read().running_canary is None


def test_arms_and_experiments_are_stopped_once_and_resumed(state):
    assert state.stop_arm("bolder", "bold", "errors: 40 % of answers")
    assert not state.stop_arm("bolder", "bold", "another reason")
    assert state.read().stopped_arms("bolder") == {"bold": "errors: 40 % of answers"}
    assert not state.read().is_stopped("bolder")
    assert state.stop_experiment("bolder", "by hand")
    assert not state.stop_experiment("bolder", "again")
    assert state.read().is_stopped("bolder") and state.read().of("bolder").reason == "by hand"
    assert state.resume("bolder") and not state.resume("bolder")
    assert state.read() == ExperimentStates()


def test_one_arm_is_resumed_alone(state):
    state.stop_arm("bolder", "bold", "a")
    state.stop_arm("bolder", "bolder", "b")
    assert state.resume("bolder", "bold") and not state.resume("bolder", "bold")
    assert state.read().stopped_arms("bolder") == {"bolder": "b"}


def test_names_that_the_config_lacks_are_known_as_unknown(state):
    state.stop_arm("old", "b", "x")
    assert state.read().unknown(["bolder"]) == ["old"]


def test_a_canary_ends_once_and_is_remembered(state):
    state.change_canary(lambda _: canary())
    assert state.read().running_canary == canary()
    ended = state.end_canary("rolled_back", "errors")
    assert ended is not None and ended.reason == "errors" and ended.ended_us
    assert state.end_canary("promoted", "late") is None
    assert state.read().canary == ended and state.read().running_canary is None
    state.change_canary(lambda _: canary("b3", started_us=2))
    assert [one.bundle for one in state.read().former_canaries] == ["b2"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"experiments": {"a": {"stopped": "maybe"}}}', '{"arms": 1}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / STATE).write_text(text)
    with pytest.raises(HandsellError, match=r"experiments\.json beside the bundles: expected .* remove it"):
        StateFile(tmp_path).read()


def test_concurrent_writers_lose_nothing(tmp_path):
    def stop(number: int) -> None:
        StateFile(tmp_path).stop_arm(f"experiment{number}", "bold", "x")

    threads = [threading.Thread(target=stop, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(StateFile(tmp_path).read().experiments) == 12
