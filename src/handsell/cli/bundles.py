"""`handsell bundles`: the trained bundles of a deployment."""

from __future__ import annotations

from typing import Annotated

import typer

from handsell.cli.arguments import BundleName, ConfigPath, load, load_on_cluster

app = typer.Typer(no_args_is_help=True, help="List, show, promote and roll back trained bundles.")


@app.command("list")
def list_bundles(config: ConfigPath) -> None:
    """List all bundles, newest first, and mark the live one and the canary."""
    from rich import print as show

    from handsell.bundles.opening import open_bundles
    from handsell.experiments.state import open_states
    from handsell.local.bundles import bundle_table

    loaded = load(config)
    show(bundle_table(open_bundles(loaded), open_states(loaded).read()))


@app.command("show")
def show_bundle(config: ConfigPath, bundle: BundleName = "live") -> None:
    """Print the manifest of a bundle."""
    from handsell.bundles.opening import open_bundles
    from handsell.local.bundles import resolve_bundle

    store = open_bundles(load(config))
    print(store.show(resolve_bundle(store, bundle)).model_dump_json(indent=2))


@app.command("promote")
def promote_bundle(
    config: ConfigPath,
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Bundle id.")],
    canary: Annotated[
        str | None,
        typer.Option(help="Give it to this share of users first, such as 5%; 0% ends the canary."),
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--for", help="Least time as a canary, such as 2h; by default canary.hours.")
    ] = None,
    min_slates: Annotated[
        int | None, typer.Option(min=0, help="Least slates as a canary; by default canary.min_slates.")
    ] = None,
    max_click_loss: Annotated[
        float | None,
        typer.Option(min=0.01, max=1, help="Loss of clicks that must be ruled out; by default canary.max_click_loss."),
    ] = None,
) -> None:
    """Verify a bundle and make it live; a running service switches to it without interruption.

    With --canary the live bundle stays. The guard of the running service makes the candidate live when its time and
    slates are reached without a guard rail being hit and a loss of clicks is ruled out, or else rolls it back.
    """
    loaded = load_on_cluster(config)

    from handsell.jobs.audited_command import audit_command
    from handsell.local import bundles
    from handsell.local.service import wait_for_switch

    if canary is not None:
        with audit_command(loaded, "bundles promote", f"bundle {bundle} as canary {canary}"):
            print(bundles.run_canary(loaded, bundle, canary, duration, min_slates, max_click_loss))
        return
    with audit_command(loaded, "bundles promote", f"bundle {bundle}"):
        bundles.promote(loaded, bundle)
    print(f"live: {bundle}")
    print(wait_for_switch(loaded, bundle))


@app.command("rollback")
def roll_back(config: ConfigPath) -> None:
    """End a running canary; without one, make the previously live bundle live again, without interruption."""
    loaded = load_on_cluster(config)

    from handsell.bundles.opening import open_bundles
    from handsell.jobs.audited_command import append_entry, audit_command
    from handsell.local.bundles import end_canary
    from handsell.local.service import wait_for_switch

    if (ended := end_canary(loaded)) is not None:
        append_entry(loaded, "bundles rollback", ended, "done")
        print(ended)
        return
    with audit_command(loaded, "bundles rollback", f"from bundle {open_bundles(loaded).live()}"):
        bundle = open_bundles(loaded).rollback()
    print(f"live: {bundle}")
    print(wait_for_switch(loaded, bundle))
