"""Commands for source data; `handsell import` brings the data of another system along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from handsell.cli.arguments import ConfigPath, DataPath, load, load_on_cluster

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="A file, a folder of files, or a URI.")]
Out = Annotated[Path, typer.Option("--out", help="New or empty folder for the tables and the config.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="COLUMN=NAME", help="handsell's column = column or field of the source; repeat it."
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option("--weight", metavar="TYPE=NUMBER", help="Weight of an event type in the config; repeat it."),
]
Name = Annotated[str | None, typer.Option(help="Name of the deployment; by default that of the folder.")]
import_app = typer.Typer(
    no_args_is_help=True, help="Bring data of another system along: tables and a config are written."
)


def doctor(
    config: ConfigPath,
    data: DataPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Check the source data before training; exit with status 1 if it cannot be used."""
    from handsell.doctor.inspection import examine, render

    report = examine(load(config, data))
    if as_json:
        print(json.dumps(report.as_dict(), indent=1, default=str))
    else:
        render(report)
    if not report.ok:
        raise typer.Exit(1)


def data(config: ConfigPath, data: DataPath = None) -> None:
    """Read the source data and write it as Parquet with numbered users and items."""
    loaded = load_on_cluster(config, data)

    from handsell.jobs.ingest.ingest import prepare
    from handsell.jobs.progress import report_result
    from handsell.storage.published_state import synchronize

    with synchronize(loaded):
        counts = prepare(loaded)
    report_result(f"{counts['events']:,} events, {counts['users']:,} users, {counts['items']:,} items")


def compact(config: ConfigPath) -> None:
    """Copy new events, impressions and catalog changes from the event store to Parquet files by date."""
    loaded = load(config)

    from handsell.events.compaction import compact as copy
    from handsell.jobs.progress import report_result, report_update
    from handsell.storage.published_state import synchronize

    with synchronize(loaded):
        copied = copy(loaded, report_update)
    report_result(copied.to_text())


@import_app.command("gorse")
def import_gorse(source: Source, out: Out, weight: Weights = None, name: Name = None) -> None:
    """Import what Gorse exports: JSON lines, CSV, its binary dump, or an SQL dump of its database."""
    _import("gorse", source, out, None, weight, name)


@import_app.command("metarank")
def import_metarank(
    source: Source, out: Out, column: Columns = None, weight: Weights = None, name: Name = None
) -> None:
    """Import events of Metarank, JSON lines of item, user, ranking and interaction events."""
    _import("metarank", source, out, column, weight, name)


@import_app.command("csv")
def import_csv(source: Source, out: Out, column: Columns = None, weight: Weights = None, name: Name = None) -> None:
    """Import CSV files of any dialect: events, and items and users if there are files of them."""
    _import("csv", source, out, column, weight, name)


def _import(
    system: Literal["gorse", "metarank", "csv"],
    source: str,
    out: Path,
    columns: list[str] | None,
    weights: list[str] | None,
    name: str | None,
) -> None:
    """Import a source, show what was read, skipped and why, and what comes next."""
    from handsell.jobs.progress import report_result, report_update
    from handsell.migration.importing import ImportSettings, import_source

    given = {kind: _read_number(kind, text) for kind, text in _split("--weight", weights).items()}
    settings = ImportSettings(_split("--column", columns), given, _check_name(name))
    config, tally = import_source(system, source, out.expanduser(), settings)
    for line in tally.to_lines():
        report_update(line)
    report_result(f"{config} is written; next: handsell doctor {config}")


def _split(option: str, pairs: list[str] | None) -> dict[str, str]:
    from handsell.core.errors import ConfigError

    found = {}
    for pair in pairs or ():
        key, sign, value = pair.partition("=")
        if not sign or not key or not value:
            raise ConfigError(f"{option}: expected NAME=VALUE, got {pair!r:.80}")
        found[key] = value
    return found


def _read_number(kind: str, text: str) -> float:
    from handsell.core.errors import ConfigError

    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < 1e6:
        raise ConfigError(f"--weight {kind}: expected a number, got {text!r:.80}")
    return number


def _check_name(name: str | None) -> str | None:
    import re

    from handsell.core.errors import ConfigError

    if name is not None and not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name):
        raise ConfigError(f"--name: expected small letters, digits and _, a letter first, got {name!r:.80}")
    return name
