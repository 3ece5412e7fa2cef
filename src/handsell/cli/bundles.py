"""`handsell bundles`: the trained bundles of a deployment."""

from __future__ import annotations

from typing import Annotated

import typer

from handsell.cli.arguments import BundleName, ConfigPath, load

app = typer.Typer(no_args_is_help=True, help="List, show, promote and roll back trained bundles.")


@app.command("list")
def list_bundles(config: ConfigPath) -> None:
    """List all bundles, newest first, and mark the live one."""
    from rich import print as show

    from handsell.local.bundles import bundle_table, open_bundles

    show(bundle_table(open_bundles(load(config))))


@app.command("show")
def show_bundle(config: ConfigPath, bundle: BundleName = "live") -> None:
    """Print the manifest of a bundle."""
    from handsell.local.bundles import open_bundles, resolve_bundle

    store = open_bundles(load(config))
    print(store.show(resolve_bundle(store, bundle)).model_dump_json(indent=2))


@app.command("promote")
def promote_bundle(
    config: ConfigPath, bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Bundle id.")]
) -> None:
    """Verify a bundle and make it live; a running service switches to it without interruption."""
    from handsell.local.bundles import open_bundles
    from handsell.local.service import wait_for_switch

    loaded = load(config)
    open_bundles(loaded).promote(bundle)
    print(f"live: {bundle}")
    print(wait_for_switch(loaded, bundle))


@app.command("rollback")
def roll_back(config: ConfigPath) -> None:
    """Make the previously live bundle live again; a running service switches to it without interruption."""
    from handsell.local.bundles import open_bundles
    from handsell.local.service import wait_for_switch

    loaded = load(config)
    bundle = open_bundles(loaded).rollback()
    print(f"live: {bundle}")
    print(wait_for_switch(loaded, bundle))
