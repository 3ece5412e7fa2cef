"""Commands of the documents: cut into programs with their arguments, and checked against what they call."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import typer.main
from benchmarks.__main__ import BENCHMARKS

from handsell.cli import app

ROOT = Path(__file__).parent.parent
SEPARATORS = ("&&", "||", ";", "|")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z]+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE))

RUN_BY = {
    "feast": "tests/unit/test_feature_repo.py",
    "ray": "tests/graph/test_serving_sockets.py",
    "serve": "tests/graph/test_serving_sockets.py",
    "eval": "tests/graph/test_serving_sockets.py",
    "promtool": "tests/unit/test_alerts.py",
    "kubectl": "tests/kube/conftest.py",
    "openssl": "tests/kube/conftest.py",
    "npm": "tests/browser/test_built_files.py",
    **dict.fromkeys(("pip", "git", "openssl", "head", "cd", "."), ""),
}
"""Programs of others: the test that runs them as the documents do; none for what everybody has."""

ELSEWHERE = {
    "doctor": "tests/unit/test_tutorial.py",
    "env": "tests/graph/test_serving_sockets.py",
    "evaluate": "tests/unit/test_served.py",
    "import csv": "tests/unit/test_tutorial.py",
    "ope": "tests/unit/test_off_policy_service.py",
    "plan": "tests/unit/test_capacity_plan.py",
    "recommend": "tests/graph/test_installed_service.py",
    "rules preview": "tests/unit/test_rules_preview.py",
    "serve": "tests/graph/test_installed_service.py",
    "batch": "tests/graph/test_local_cluster.py",
    "train": "tests/graph/test_training_published.py",
    "up": "tests/graph/test_installed_service.py",
}
"""Commands of handsell that need a cluster or data: the test of what they do. All others run in test_snippets.py."""


def split_lines(text: str) -> list[str]:
    """Return the lines of a shell text; a line that ends in a backslash or within quotes goes on in the next."""
    lines: list[str] = []
    is_open = False
    for line in text.splitlines():
        if is_open:
            lines[-1] += f"\n{line}"
        else:
            lines.append(line)
        is_open = lines[-1].endswith("\\") or _split_words(lines[-1]) is None
    return lines


def split_commands(text: str) -> list[list[str]]:
    """Return the programs of a shell text with their arguments, without prompts and comments."""
    programs: list[list[str]] = []
    for line in split_lines(text):
        programs.append([])
        for word in _split_words(line) or ():
            if word in SEPARATORS:
                programs.append([])
            else:
                programs[-1].append(word)
    return [program for program in programs if program]


def _split_words(line: str) -> list[str] | None:
    """Return the words of a line, None where a quote is not closed."""
    text = re.sub(r"\\\n\s*", " ", line.removesuffix("\\")).strip().removeprefix("$ ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";|&")
    lexer.whitespace_split, lexer.commenters = True, "#"
    try:
        return list(lexer)
    except ValueError:
        return None


def check_command(program: list[str]) -> None:
    """Raise AssertionError where a command of a document cannot be right."""
    name, *arguments = program
    if re.fullmatch(r"[A-Z]+=.*", name):
        return  # a variable
    if name == "make":
        check_make(arguments)
    elif name in ("handsell", "python"):
        check_python(program)
    elif "/" in name:
        assert (ROOT / name).exists(), f"{name}: no such file"
    else:
        assert name in RUN_BY, f"{name}: say in RUN_BY which test runs it, or mark the block as an illustration"
        if "--" in arguments:  # `ray job submit -- handsell …`, `kubectl exec … -- handsell …`
            inner = arguments[arguments.index("--") + 1 :]
            if inner[0] in ("handsell", "python"):
                check_python(inner)
        for path in re.findall(r"(?:^| )((?:deployments|feature_repo)[\w/.-]*)", " ".join(arguments)):
            assert (ROOT / path).exists(), f"{path}: no such file"


def check_make(arguments: list[str]) -> None:
    for one in arguments:
        name, given, _ = one.partition("=")
        assert name in (VARIABLES | {"PYTHON"} if given else TARGETS), f"make {one}: not in the Makefile"


def check_python(program: list[str]) -> None:
    if program[:3] == ["python", "-m", "handsell"] or program[0] == "handsell":
        check_handsell(program[program.index("handsell") + 1 :])
    elif program[1:3] == ["-m", "benchmarks"]:
        assert program[3] in BENCHMARKS, f"{program[3]}: no such benchmark"
    elif program[1] == "-m":
        assert importlib.util.find_spec(program[2]), f"{program[2]}: no such module"
    else:
        assert (ROOT / program[1]).exists(), f"{program[1]}: no such file"


def check_handsell(arguments: list[str]) -> None:
    """Let the command line parse a command as it is written, without running it."""
    group = typer.main.get_command(app)
    words = [word for word in arguments if word != "…"]
    while hasattr(group, "commands"):
        assert words and words[0] in group.commands, f"handsell {' '.join(arguments)}: no such command"
        group = group.commands[words.pop(0)]
    if "…" in arguments:  # a part is left out: the options that are there must exist
        check_options(group, words)
    else:
        group.make_context(group.name, list(words))


def check_options(command, words: list[str]) -> None:
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    assert not unknown, f"{command.name}: no such option: {', '.join(unknown)}"


def check_mention(text: str) -> None:
    """Check a command in a sentence: `handsell evaluate CONFIG [--bundle NAME]`."""
    group, words = typer.main.get_command(app), re.findall(r"--?[\w-]+|\w[\w.-]*", text)[1:]
    while hasattr(group, "commands") and words:
        if words[0] not in group.commands:
            return  # a family of commands, such as `handsell keys`
        group = group.commands[words.pop(0)]
    if not hasattr(group, "commands"):
        check_options(group, words)


def list_runnable(text: str) -> list[list[str]]:
    """Return the arguments of each command of handsell in a shell text that needs neither a cluster nor data."""
    found = []
    for program in split_commands(text):
        inner = program[program.index("--") + 1 :] if "--" in program else program
        if inner[0] == "handsell" or inner[:3] == ["python", "-m", "handsell"]:
            arguments = inner[inner.index("handsell") + 1 :]
            if not ELSEWHERE.keys() & {arguments[0], " ".join(arguments[:2])}:
                found.append(arguments)
    return found
