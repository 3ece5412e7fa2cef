"""The command line. Every import of weight happens inside a command: `--help` answers at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from handsell.core.errors import HandsellError

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="a TOML file, such as deployments/configs/world.toml")
]
DataPath = Annotated[Path | None, typer.Option("--data", help="folder of the source data; overrides data.path")]
Topology = Literal["graph", "fused"]

app = typer.Typer(
    name="handsell", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Out of millions of items, which ten for this user, now?",
)  # fmt: skip
bundles = typer.Typer(no_args_is_help=True, help="List, show, promote and roll back trained bundles.")
app.add_typer(bundles, name="bundles")
rules = typer.Typer(no_args_is_help=True, help="Check business rules, and see what a file of them would change.")
app.add_typer(rules, name="rules")
RulesPath = Annotated[Path, typer.Option("--rules", help="a file of business rules, see docs/rules.md")]


def _load(path: Path, data: Path | None = None):
    import os

    from handsell.config import load_config

    if data is not None:
        os.environ["HANDSELL_DATA"] = str(data.expanduser().resolve())
    return load_config(path)


@app.command()
def up(config: ConfigPath, data: DataPath = None, topology: Topology = "graph") -> None:
    """Everything from nothing to a served recommendation, on this machine."""
    from handsell.local.up import up as bring_up

    bring_up(_load(config, data), topology)


@app.command()
def down(config: ConfigPath) -> None:
    """Stop what `up` started, and nothing else."""
    from handsell.local.up import down as take_down

    take_down(_load(config))


@app.command()
def doctor(config: ConfigPath, data: DataPath = None) -> None:
    """Examine the source data before anything is trained."""
    from handsell.data.doctor.inspection import examine, render

    findings = examine(_load(config, data))
    render(findings)
    if not findings.ok:
        raise typer.Exit(1)


@app.command()
def data(config: ConfigPath, data: DataPath = None) -> None:
    """Read the source into canonical, numbered Parquet."""
    from handsell.jobs.ingest.ingest import prepare

    counts = prepare(_load(config, data))
    print(f"result: {counts['events']:,} events, {counts['users']:,} users, {counts['items']:,} items")


@app.command()
def features(config: ConfigPath) -> None:
    """Compute feature values for Feast and the item snapshot, with Ray."""
    from handsell.jobs.cluster import connected
    from handsell.jobs.features.feature_tables import compute
    from handsell.jobs.train.windows import request_keys

    loaded = _load(config)
    with connected(loaded.jobs.num_cpus):
        counts = compute(loaded, request_keys(loaded))
    print(f"result: {counts['user_activity']:,} moments of users, {counts['item_activity']:,} days of items")


@app.command()
def apply(config: ConfigPath) -> None:
    """Register the feature repository with Feast (the same as `feast apply`)."""
    from handsell.features.store import open_store

    open_store(_load(config)).apply()
    print("result: registered")


@app.command()
def env(config: ConfigPath) -> None:
    """Print the exports with which the stock feast, ray and serve commands work on this config and its cluster."""
    import shlex

    from handsell.features.repository import feast_environment
    from handsell.local import cluster

    loaded = _load(config)
    exports, head = feast_environment(loaded), cluster.running(loaded)
    if head is None:
        print(f"no cluster of {loaded.name} is running: exports for feast only", file=sys.stderr)
    else:
        exports |= head.access
    for name, value in exports.items():
        print(f"export {name}={shlex.quote(value)}")


@app.command()
def materialize(config: ConfigPath) -> None:
    """Copy the newest feature values to the online store."""
    from handsell.features.store import open_store

    open_store(_load(config)).materialize()
    print("result: online store is up to date")


@app.command()
def train(config: ConfigPath, promote: bool = True) -> None:
    """Train, evaluate and bundle; promote if the bundle passes its gate."""
    from handsell.jobs.train.train import train as run

    print(f"result: {run(_load(config), promote=promote)}")


@app.command()
def evaluate(
    config: ConfigPath,
    bundle: str = "live",
    served: Annotated[
        bool, typer.Option("--served", help="ask the running service, and compare with a replay")
    ] = False,
    held_out: Annotated[
        Path | None, typer.Option(help="with --served: CSV or Parquet of user_id and item_id that should be found")
    ] = None,
    users: Annotated[int, typer.Option(min=1, help="with --served: users that are asked for, at most")] = 1_000,
    url: Annotated[str, typer.Option(help="with --served: of the service, where it is not this config's own")] = "",
) -> None:
    """Print the evaluation that a bundle carries, and where its report lies; or evaluate what the service answers."""
    from handsell.local.bundles import open_bundles, resolve
    from handsell.local.summary import print_report

    loaded = _load(config)
    if served:
        from handsell.local.served import evaluate_served

        if not evaluate_served(loaded, held_out, users, url):
            raise typer.Exit(1)
        return
    store = open_bundles(loaded)
    path = store.local_path(resolve(store, bundle))
    print_report(json.loads((path / "report.json").read_text()))
    print(f"report: {path / 'report.html'}")


@app.command()
def serve(config: ConfigPath, topology: Topology = "graph") -> None:
    """Deploy the live bundle on the running local cluster."""
    from handsell.local import cluster, service

    loaded = _load(config)
    head = cluster.running(loaded)
    if head is None:
        raise HandsellError(f"no cluster of {loaded.name} is running: `make up CONFIG={config}` starts one")
    print(service.deploy(loaded, head, topology))
    print(service.wait_until_ready(loaded))


@app.command()
def recommend(config: ConfigPath, user: str, count: int = 10, surface: str = "home", url: str = "") -> None:
    """Ask the running service for one user's slate."""
    from urllib.parse import quote

    import httpx

    from handsell.local.service import address

    base = url or address(_load(config))
    try:
        answer = httpx.get(
            f"{base}/v1/users/{quote(user, safe='')}/recommendations",
            params={"count": count, "surface": surface},
            timeout=10.0,
        )
    except httpx.HTTPError as error:
        raise HandsellError(
            f"no service answers at {base} ({error}): start it with `make up CONFIG={config}`"
        ) from None
    if "json" not in answer.headers.get("content-type", ""):
        raise HandsellError(f"{base} answered {answer.status_code} without JSON: is it handsell that listens there?")
    print(json.dumps(answer.json(), indent=2, ensure_ascii=False))
    if answer.status_code >= 400:
        raise typer.Exit(1)


@app.command()
def batch(
    config: ConfigPath,
    surface: Annotated[str, typer.Option(help="of the config, such as email")],
    out: Annotated[Path, typer.Option(help="folder of this run; the same one again goes on where it stopped")],
    users_per_part: Annotated[int, typer.Option(min=1, max=10_000, help="of one Parquet file")] = 1_000,
    record: Annotated[bool, typer.Option(help="log the slates as shown, so that caps and other surfaces know")] = True,
) -> None:
    """A slate for every user, as Parquet: for e-mail and push."""
    from handsell.jobs.batch.batch_slates import batch as run

    print(f"result: {run(_load(config), surface, out, users_per_part=users_per_part, record=record)}")


@app.command()
def skew(config: ConfigPath) -> None:
    """Compare logged served feature vectors with the point-in-time values."""
    from handsell.jobs.features.skew import report

    report(_load(config))


@bundles.command("list")
def bundles_list(config: ConfigPath) -> None:
    """All bundles, newest first; the live one is marked."""
    from rich import print as show

    from handsell.local.bundles import open_bundles, table

    show(table(open_bundles(_load(config))))


@bundles.command("show")
def bundles_show(config: ConfigPath, bundle: str = "live") -> None:
    """A bundle's manifest."""
    from handsell.local.bundles import open_bundles, resolve

    store = open_bundles(_load(config))
    print(store.show(resolve(store, bundle)).model_dump_json(indent=2))


@bundles.command("promote")
def bundles_promote(config: ConfigPath, bundle: str) -> None:
    """Verify a bundle and make it the live one; a running service turns to it without a pause."""
    from handsell.local.bundles import open_bundles
    from handsell.local.service import followed

    loaded = _load(config)
    open_bundles(loaded).promote(bundle)
    print(f"live: {bundle}")
    print(followed(loaded, bundle))


@bundles.command("rollback")
def bundles_rollback(config: ConfigPath) -> None:
    """Return to the bundle that was live before; a running service turns to it without a pause."""
    from handsell.local.bundles import open_bundles
    from handsell.local.service import followed

    loaded = _load(config)
    bundle = open_bundles(loaded).rollback()
    print(f"live: {bundle}")
    print(followed(loaded, bundle))


@rules.command("check")
def rules_check(config: ConfigPath, rules: RulesPath) -> None:
    """Whether a file of rules fits this deployment; what each rule speaks of."""
    from rich import print as show

    from handsell.core.clock import Clock
    from handsell.local.rules import open_rules
    from handsell.local.rules_view import checked

    opened, edition = open_rules(_load(config), rules)
    show(checked(edition, Clock.of(opened.config.serving.clock, opened.manifest).now()))


@rules.command("preview")
def rules_preview(
    config: ConfigPath,
    rules: RulesPath,
    requests: Annotated[int, typer.Option(min=1, max=100_000, help="recorded requests, the latest")] = 200,
    json_: Annotated[bool, typer.Option("--json", help="the same as JSON")] = False,
) -> None:
    """What a file of rules would change on recorded requests; nothing is put into force."""
    from handsell.local.rules import preview, summary

    told = summary(preview(_load(config), rules, requests))
    if json_:
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    from handsell.local.rules_view import show

    show(told)


def main() -> None:
    """Entry point: an error of the user's is told in words, never as a traceback."""
    try:
        app()
    except HandsellError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
