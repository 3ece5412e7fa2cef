"""Progress of a child process: read from JSON lines among other output, and the real cause when it fails."""

import json
import os
import subprocess
import sys

import pytest

from handsell.core.errors import HandsellError
from handsell.jobs.progress import ProgressLine
from handsell.local.processes import child_process
from handsell.local.processes.child_process import CommandProcess, run_child

JOB = """
import sys
from handsell.jobs.progress import Progress, report_result, report_update

print("2026-11-29 08:00:00 INFO worker.py:1 -- Connecting to an existing Ray cluster")
progress = Progress(2)
with progress.step("windows", "3 of them") as note:
    report_update("cut 1 of 3")
    note.text = "10 requests"
print("{not JSON}", '{"other": 1}', file=sys.stderr)
with progress.step("ranker"):
    report_update("cut 1 of 3")
report_result("bundle b1 is live")
"""
FORWARDED = """
from handsell.jobs.progress import ProgressLine

line = ProgressLine("update", "scored 10 of 20 requests").to_json()
print(line)
print(f"\\x1b[36m(score pid=17, ip=127.0.0.1)\\x1b[0m {line} [repeated 2x across cluster]")
print(ProgressLine("started", "", 2, 2, "gate").to_json()[:-9])
"""


def run(tmp_path, script: str) -> tuple[str, list[str], str]:
    """(result, lines shown, log) of a Python script that runs as a child process."""
    shown: list[str] = []
    result = run_child([sys.executable, "-c", script], {}, tmp_path / "logs" / "job.log", shown.append)
    return result, shown, (tmp_path / "logs" / "job.log").read_text()


def test_steps_and_updates_are_shown_and_the_result_is_returned(tmp_path):
    result, shown, log = run(tmp_path, JOB)
    assert result == "bundle b1 is live"
    assert [line.partition(" (")[0] for line in shown] == [
        "    [1/2] windows: 3 of them …", "      · cut 1 of 3", "    [1/2] windows: 10 requests",
        "    [2/2] ranker …", "      · cut 1 of 3", "    [2/2] ranker: done",
    ]  # fmt: skip
    assert "Connecting to an existing Ray cluster" in log and "{not JSON}" in log
    assert "[1/2] windows: 10 requests" in log and '"progress"' not in log


def test_a_line_that_ray_forwards_again_is_shown_once_and_a_cut_one_is_kept_in_the_log(tmp_path):
    result, shown, log = run(tmp_path, FORWARDED)
    assert shown == ["      · scored 10 of 20 requests"]
    assert result == "done" and '{"progress": "started"' in log


def test_a_failed_command_shows_its_own_message_and_not_what_was_printed_around_it(tmp_path):
    config = tmp_path / "typo.toml"
    config.write_text('name = "typo"\n[ranking]\ntress = 300\n')
    command = [sys.executable, "-m", "handsell", "down", str(config)]
    with pytest.raises(HandsellError, match=r"ranking\.tress") as raised:
        run_child(command, {}, tmp_path / "down.log")
    assert str(raised.value).startswith(f"config {config}:\n") and "down.log" in str(raised.value)


def test_a_crash_shows_the_end_of_its_output(tmp_path):
    with pytest.raises(HandsellError, match="ZeroDivisionError: division by zero"):
        run(tmp_path, JOB + "1 / 0\n")


def test_people_get_text(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HANDSELL_PROGRESS", raising=False)
    exec(JOB, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "[1/2] windows: 3 of them …" and lines[-1] == "result: bundle b1 is live"


@pytest.mark.parametrize(
    "line",
    [
        ProgressLine("finished", "µ ≥ 1\nsecond line", 3, 12, "served", 1.25),
        ProgressLine("error", 'a "quoted" cause'),
        ProgressLine("update"),
    ],
)
def test_json_lines_are_read_back(line):
    text = line.to_json()
    assert "\n" not in text and json.loads(text)["progress"] == line.progress
    assert ProgressLine.from_json(text) == line


def test_fields_of_a_newer_version_are_ignored():
    assert ProgressLine.from_json('{"progress": "update", "text": "a", "color": "red"}') == ProgressLine("update", "a")
    assert ProgressLine.from_json("[1/2] windows …") is None


def test_progress_of_any_characters_is_kept_in_any_locale(tmp_path):
    script = r"""
import sys
from pathlib import Path
from handsell.local.processes.child_process import run_child
job = r"from handsell.jobs.progress import *; print('K\xe4se'); report_update('\xfc \u2026'); report_result('\xb5')"
print(ascii(run_child([sys.executable, "-c", job], {}, Path(sys.argv[1]), lambda line: print(ascii(line)))))
"""
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    path = tmp_path / "job.py"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path), str(tmp_path / "job.log")], capture_output=True, encoding="utf-8", check=False,
        timeout=60, env={**os.environ, **plain},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [ascii("      · ü …"), ascii("µ")]
    assert "Käse" in (tmp_path / "job.log").read_text(encoding="utf-8")


SERVER = """
import os, sys
from handsell.jobs.progress import report_error, report_result, report_update
from handsell.local.processes.child_process import format_end

for line in sys.stdin:
    report_update(line.strip())
    if "crash" in line:
        print("Segmentation fault")
        os._exit(3)
    report_error("no data") if "fail" in line else report_result(f"done by {os.getpid()}")
    print(format_end(int("fail" in line)), flush=True)
"""


@pytest.fixture
def commands(tmp_path, monkeypatch):
    (tmp_path / "scripted_commands.py").write_text(SERVER)
    monkeypatch.setattr(child_process, "SERVER", "scripted_commands")
    with CommandProcess({"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}) as process:
        yield process


def test_commands_run_in_one_process_and_one_that_fails_does_not_end_it(commands, tmp_path):
    shown: list[str] = []
    first = commands.run(["data", "shop.toml"], tmp_path / "data.log", shown.append)
    assert shown == ['      · ["data", "shop.toml"]']
    assert (tmp_path / "data.log").read_text() == '  · ["data", "shop.toml"]\n' + f"result: {first}\n"
    with pytest.raises(HandsellError, match=r"^no data\n\(full output: .*fail\.log\)"):
        commands.run(["fail"], tmp_path / "fail.log", shown.append)
    assert commands.run(["features"], tmp_path / "features.log", shown.append) == first


def test_after_a_crash_its_last_lines_are_the_error_and_the_next_command_runs(commands, tmp_path):
    first = commands.run(["data"], tmp_path / "data.log")
    with pytest.raises(HandsellError, match=r"^Segmentation fault\n"):
        commands.run(["crash"], tmp_path / "crash.log")
    assert commands.run(["data"], tmp_path / "data.log") not in ("done", first)


def test_the_process_of_commands_runs_those_of_handsell(tmp_path):
    config = tmp_path / "shop.toml"
    with CommandProcess({}) as process:
        for _ in range(2):
            with pytest.raises(HandsellError, match=r"shop\.toml"):
                process.run(["apply", str(config)], tmp_path / "apply.log")
        with pytest.raises(HandsellError, match="No such command"):
            process.run(["nothing"], tmp_path / "nothing.log")
