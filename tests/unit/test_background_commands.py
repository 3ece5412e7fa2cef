"""Commands that the console starts: one at a time, with their JSON, their message, or the limit of their time."""

import asyncio

import pytest

from handsell.console import background_commands
from handsell.console.background_commands import BackgroundCommands, CommandFailedError, _find_message


@pytest.fixture
def commands(monkeypatch):
    """Runs answers instead of processes: `calls` has the commands in their order, `running` how many at a time."""

    class Fake(BackgroundCommands):
        def __init__(self, **keys):
            super().__init__(**keys)
            self.calls, self.running, self.most = [], 0, 0

    fake = Fake(limit_s=0.5)

    async def call(arguments):
        fake.calls.append(arguments)
        fake.running += 1
        fake.most = max(fake.most, fake.running)
        try:
            await asyncio.sleep(9 if arguments[0] == "slow" else 0.01)
            if arguments[0] == "bad":
                raise CommandFailedError("expected a file, got none")
            return {"said": arguments[-1]}
        finally:
            fake.running -= 1

    monkeypatch.setattr(background_commands, "_call", call)
    return fake


async def test_commands_run_one_at_a_time_and_keep_their_value(commands):
    assert commands.find("doctor", "a") is None
    first, second = commands.start("doctor", "a"), commands.start("doctor", "b")
    assert commands.start("doctor", "a") is first and not first.is_over
    await commands.wait("doctor", "b")
    assert (first.value, second.value, commands.most) == ({"said": "a"}, {"said": "b"}, 1)
    assert commands.find("doctor", "a") is first and len(commands.calls) == 2


async def test_a_command_that_fails_or_takes_too_long_says_so(commands):
    assert (await commands.wait("bad")).problem == "expected a file, got none"
    assert "was stopped" in (await commands.wait("slow")).problem
    assert (await commands.wait("doctor", "c")).value == {"said": "c"}


async def test_closing_ends_what_runs(commands):
    run = commands.start("slow")
    await asyncio.sleep(0.05)
    await commands.close()
    assert run.is_over and commands.running == 0


@pytest.mark.slow
async def test_a_real_command_gives_text_json_or_its_message(tmp_path):
    commands = BackgroundCommands()
    assert "handsell" in (await commands.wait("--help")).value
    run = await commands.wait("experiments", "list", str(tmp_path / "none.toml"))
    assert run.value is None and "none.toml" in run.problem and not run.problem.startswith("error")


@pytest.mark.parametrize("pause_s", [0.0, 0.01, 0.3])
async def test_closing_ends_a_process_at_any_moment(pause_s, tmp_path):
    commands = BackgroundCommands()
    run = commands.start("experiments", "list", str(tmp_path / "none.toml"))
    await asyncio.sleep(pause_s)
    async with asyncio.timeout(20):
        await commands.close()
    assert run.is_over and run.value is None


def test_the_message_of_an_error_is_found_among_other_lines():
    assert _find_message("warming up\nerror: expected a, got b:\ntry c\n") == "expected a, got b: try c"
    assert _find_message("Traceback\nValueError: x") == "ValueError: x"
    assert _find_message("") == "it ended without a message"
