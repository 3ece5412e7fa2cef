"""Command line of `python -m benchmarks protocols`."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.protocols import command
from benchmarks.protocols.run import RunSettings
from handsell.core.errors import ConfigError, HandsellError


class Format(StrEnum):
    ADJACENCY = "adjacency"
    SEQUENCES = "sequences"
    SESSIONS = "sessions"


class Mask(StrEnum):
    HISTORY = "history"
    NONE = "none"


class Order(StrEnum):
    TIME = "time"
    NONE = "none"


NEEDS = {
    Format.ADJACENCY: ("--train", "--test"),
    Format.SEQUENCES: ("--data",),
    Format.SESSIONS: ("--train", "--test"),
}
TAKES = {
    Format.ADJACENCY: ("--train", "--test", "--validation", "--order"),
    Format.SEQUENCES: ("--data", "--attributes", "--mask"),
    Format.SESSIONS: ("--train", "--test"),
}
DEFAULT_K = {Format.ADJACENCY: 20, Format.SEQUENCES: 10, Format.SESSIONS: 20}


app = typer.Typer(add_completion=False)


@app.command()
def measure(
    format: Annotated[Format, typer.Option(help="format and protocol of the files")],
    train: Annotated[
        Path | None, typer.Option(help="adjacency: lines of `user item …`; sessions: of `item item …`")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="adjacency: lines of `user item …`; sessions: of `prefix … target`")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="adjacency: tune on this file, not on a part of train")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="sequences: lines of `user item …`; the last item is the target")
    ] = None,
    attributes: Annotated[Path | None, typer.Option(help="sequences: JSON of item → list of attributes")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="length of the lists; default 20, for sequences 10")] = None,
    models: Annotated[str, typer.Option(help="comma-separated retrievers, or all")] = "all",
    blend: Annotated[
        list[str] | None, typer.Option(help="also a weighted blend of these retrievers; repeatable")
    ] = None,
    mask: Annotated[
        Mask | None, typer.Option(help="sequences: whether items of the history are masked; default: history")
    ] = None,
    order: Annotated[
        Order | None, typer.Option(help="adjacency: whether lines are in the order of time; default: found from train")
    ] = None,
    budget_s: Annotated[float, typer.Option(min=0, help="seconds of tuning for each model")] = 600.0,
    tune: Annotated[
        bool, typer.Option("--tune/--defaults", "--tune/--no-tune", help="tune, or use the defaults")
    ] = True,
    chosen: Annotated[Path | None, typer.Option(help="hyper-parameters of an earlier run's --json")] = None,
    look_at_test: Annotated[
        bool, typer.Option("--look-at-test/--no-look-at-test", help="evaluate on test, or on the validation part only")
    ] = True,
    seed: Annotated[int, typer.Option(help="of the models and of the validation sample")] = 0,
    json: Annotated[Path | None, typer.Option(help="output file")] = None,
) -> None:
    """Fit, tune and score retrievers on a public data set by its fixed protocol."""
    paths = {"--train": train, "--test": test, "--validation": validation, "--data": data, "--attributes": attributes}
    _check(format, {name for name, path in {**paths, "--mask": mask, "--order": order}.items() if path is not None})
    given = {name: path for name, path in paths.items() if path}
    ordered = None if order is None else order == Order.TIME
    protocol_data = command.read_data(format.value, given, mask != Mask.NONE, ordered, seed)
    params = command.read_chosen(chosen) if chosen else {}
    settings = RunSettings(k or DEFAULT_K[format], budget_s, tune, look_at_test, seed, params)
    blends = [_names(each) for each in blend or []]
    failed = command.measure(
        protocol_data,
        settings,
        _names(models),
        blends,
        json,
        _command(),
    )
    if failed:
        raise typer.Exit(1)


def _command() -> str:
    return shlex.join(["python", "-m", "benchmarks", "protocols", *sys.argv[1:]])


def _check(format: Format, options: set[str]) -> None:
    missing = [name for name in NEEDS[format] if name not in options]
    if missing:
        raise ConfigError(f"--format {format.value} needs {' and '.join(missing)}")
    foreign = sorted(options - set(TAKES[format]))
    if foreign:
        raise ConfigError(
            f"--format {format.value} takes {', '.join(TAKES[format])}; {', '.join(foreign)} belongs to another format"
        )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def main() -> None:
    try:
        app(prog_name="python -m benchmarks protocols")
    except HandsellError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
