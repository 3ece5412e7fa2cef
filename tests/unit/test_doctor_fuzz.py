"""The doctor's verdict on drawn deployments against what the data and features steps then do.

No deployment that it calls ready fails or recommends nothing, no sound one is refused, and nothing ends in another
exception than an error for users.
"""

import numpy as np
import pytest

import deployment_changes  # noqa: F401 - registers the changes
from handsell.core.errors import HandsellError
from handsell.doctor.inspection import examine
from random_deployments import (
    BROKEN,
    CHANGES,
    SOUND,
    draw_deployment,
    draw_sound_shop,
    run_in_process,
    run_steps,
    write_draft,
)

FEW, MANY, AT_ONCE = range(8), range(8, 136), 32


def judge(config, draft, monkeypatch, seed) -> None:
    """Fail where the doctor and the steps disagree about a deployment."""
    told = f"seed {seed}: {', '.join(draft.changes) or 'no change'}"
    try:
        report = examine(config)
        ready, errors = report.ok, [f"{p.name}: {p.message}" for p in report.problems if p.severity == "error"]
    except HandsellError as error:
        ready, errors = False, [str(error)]
    try:
        with run_in_process(monkeypatch):
            failure = run_steps(config)
    except HandsellError as error:
        failure = str(error)
    if ready:
        assert failure is None, f"{told}: ready, but {failure}"
        assert draft.verdict != BROKEN, f"{told}: ready"
    elif draft.verdict == SOUND:
        assert not errors, f"{told}: sound, but {errors}"


def judge_seeds(seeds, tmp_path, monkeypatch) -> list[str]:
    wrong = []
    for seed in seeds:
        monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / f"{seed}" / "home"))
        try:
            judge(*draw_deployment(seed, tmp_path / f"{seed}"), monkeypatch, seed)
        except AssertionError as error:
            wrong.append(str(error))
        except HandsellError:
            continue  # the config is refused
    return wrong


def test_drawn_deployments(tmp_path, monkeypatch):
    assert not judge_seeds(FEW, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("first", MANY[::AT_ONCE])
def test_many_drawn_deployments(first, tmp_path, monkeypatch):
    assert not judge_seeds(range(first, first + AT_ONCE), tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_each_change_by_itself(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "home"))
    draft = draw_sound_shop(np.random.default_rng(len(name)))
    function, draft.verdict = CHANGES[name]
    draft.changes.append(name)
    function(draft)
    judge(write_draft(draft, tmp_path), draft, monkeypatch, "none")
