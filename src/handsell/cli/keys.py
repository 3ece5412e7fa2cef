"""`handsell keys`: API keys of the service."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from handsell.access.caller import SCOPES
from handsell.cli.arguments import ConfigPath, load, load_on_cluster

if TYPE_CHECKING:
    from handsell.access.api_key import ApiKey

app = typer.Typer(no_args_is_help=True, help="Create, list, rotate and revoke API keys; gateways follow in a second.")
ScopeName = StrEnum("ScopeName", {scope: scope for scope in SCOPES})  # type: ignore[misc]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="Id of the key, from `handsell keys list`.")]


@app.command("create")
def create(
    config: ConfigPath,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who uses the key, such as web shop.")],
    scope: Annotated[list[ScopeName], typer.Option(help="What the key may do; repeat it for several. admin: all.")],
    kind: Annotated[
        Literal["server", "widget"],
        typer.Option(help="server: sent with requests. widget: signs tokens of users for public web pages."),
    ] = "server",
    expires_in: Annotated[
        str | None, typer.Option(help="Life of the key, such as 90d; by default without end.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.01, help="Requests per second on one gateway.")] = None,
    quota: Annotated[int | None, typer.Option(min=1, help="Requests in a UTC day on all gateways together.")] = None,
) -> None:
    """Create a key and print it; it is stored as a hash and cannot be shown again."""
    loaded = load_on_cluster(config)

    from handsell.experiments.canary import parse_duration
    from handsell.jobs import api_keys

    scopes = tuple(dict.fromkeys(str(one) for one in scope))
    life_s = None if expires_in is None else parse_duration(expires_in, "--expires-in")
    key, text = api_keys.create(loaded, api_keys.KeyTerms(name, kind, scopes, life_s, rate, quota))
    _show_secret(key, text)
    if loaded.access.keys == "off":
        _note('access.keys is off: requests need a key once it is "required"')


@app.command("list")
def list_keys(config: ConfigPath) -> None:
    """List all keys, with their scopes, state, limits and requests of this UTC day where they have a quota."""
    from datetime import UTC, datetime

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from handsell.jobs import api_keys

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("id", "name", "kind", "scopes", "state", "created", "rate/s", "quota/day", "today"):
        table.add_column(column, no_wrap=column != "name")
    for listed in api_keys.list_keys(load(config)):
        key = listed.key
        created = datetime.fromtimestamp(key.created_us / 1e6, UTC).strftime("%Y-%m-%d")
        limits = (f"{value:g}" if value is not None else "" for value in (key.rate_per_s, key.quota_per_day))
        today = "" if listed.requests_today is None else f"{listed.requests_today:,}"
        table.add_row(key.key_id, key.name, key.kind, " ".join(key.scopes), listed.state, created, *limits, today)
    console = Console()
    Console(width=max(console.width, 140)).print(table)


@app.command("rotate")
def rotate(
    config: ConfigPath,
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the former secret stays valid, such as 24h, or 0s.")] = "24h",
) -> None:
    """Give a key another secret and print it; the former one stays valid for the overlap."""
    loaded = load_on_cluster(config)

    from handsell.experiments.canary import parse_duration
    from handsell.jobs import api_keys

    overlap_s = parse_duration(overlap, "--overlap")
    key, text = api_keys.rotate(loaded, key_id, overlap_s)
    _show_secret(key, text)
    _note(f"the former secret stays valid for {overlap_s:,.0f} s")


@app.command("revoke")
def revoke(config: ConfigPath, key_id: KeyId) -> None:
    """Make a key invalid for good, on every gateway within about two seconds."""
    loaded = load_on_cluster(config)

    from handsell.jobs import api_keys
    from handsell.jobs.progress import report_result

    key = api_keys.revoke(loaded, key_id)
    report_result(f"key {key.key_id} ({key.name}) is revoked")


def _show_secret(key: ApiKey, text: str) -> None:
    """Print the text of a key alone on stdout, so that a script can keep it, and what it is on stderr."""
    what = "signing secret" if key.kind == "widget" else "key"
    _note(f"{what} of {key.name} ({key.key_id}), with {', '.join(key.scopes)}; it cannot be shown again:")
    print(text)


def _note(text: str) -> None:
    typer.echo(text, err=True)
