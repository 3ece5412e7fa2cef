"""Bundles on the command line: open the store of a deployment, resolve a bundle's name, list all bundles."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.table import Table

from handsell.bundles.store import BundleStore
from handsell.config import Config
from handsell.core.errors import BundleError
from handsell.core.paths import Layout


def open_bundles(config: Config) -> BundleStore:
    return BundleStore(Layout(config.state).bundles)


def resolve_bundle(store: BundleStore, name: str) -> str:
    """Return the id of a bundle named by `live`, `latest` or its id; raises BundleError if there is no such bundle."""
    if name == "latest" and store.list():
        return store.list()[-1]
    if name in ("live", "latest"):
        live = store.live() if name == "live" else None
        if live is None:
            raise BundleError(f"there is no {name} bundle yet: run `handsell train CONFIG`")
        return live
    store.show(name)
    return name


def has_live_bundle(config: Config) -> bool:
    """Return whether a bundle is live and its files are complete."""
    store = open_bundles(config)
    try:
        live = store.live()
        return live is not None and bool(store.verify(live))
    except BundleError:
        return False


def bundle_table(store: BundleStore) -> Table:
    """Return a table of all bundles, newest first, with the live one marked."""
    table, live = Table(), store.live()
    for column in ("", "bundle", "created (UTC)", "data until", "NDCG@10"):
        table.add_column(column, no_wrap=True)
    for bundle_id in reversed(store.list()):
        try:
            about = store.show(bundle_id)
        except BundleError as error:  # of another version, say: the others are listed all the same
            table.add_row("live" if bundle_id == live else "", bundle_id, "unreadable", "", "")
            table.caption = str(error)
            continue
        created, until = (datetime.fromtimestamp(us / 1e6, UTC) for us in (about.created_us, about.data_end_us))
        score = about.metrics.get("ndcg@10")
        table.add_row(
            "live" if bundle_id == live else "", bundle_id, f"{created:%Y-%m-%d %H:%M}", f"{until:%Y-%m-%d}",
            "" if score is None else f"{score:.4f}",
        )  # fmt: skip
    return table
