"""Bundles from the command line: open the store of a deployment, name a bundle, and show what there is."""

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
    """`live`, `latest` or an id; raises BundleError when there is no such bundle."""
    if name == "latest" and store.list():
        return store.list()[-1]
    if name in ("live", "latest"):
        live = store.live() if name == "live" else None
        if live is None:
            raise BundleError(f"there is no {name} bundle yet: `handsell train CONFIG` makes one")
        return live
    store.show(name)
    return name


def bundle_table(store: BundleStore) -> Table:
    """Newest first; the live one is marked."""
    out, live = Table(), store.live()
    for column in ("", "bundle", "created (UTC)", "data until", "NDCG@10"):
        out.add_column(column, no_wrap=True)
    for bundle_id in reversed(store.list()):
        about = store.show(bundle_id)
        created, until = (datetime.fromtimestamp(us / 1e6, UTC) for us in (about.created_us, about.data_end_us))
        score = about.metrics.get("ndcg@10")
        out.add_row(
            "live" if bundle_id == live else "", bundle_id, f"{created:%Y-%m-%d %H:%M}", f"{until:%Y-%m-%d}",
            "" if score is None else f"{score:.4f}",
        )  # fmt: skip
    return out
