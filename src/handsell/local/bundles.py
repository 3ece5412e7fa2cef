"""Bundles on the command line: resolve a bundle's name, list all bundles."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.table import Table

from handsell.bundles.opening import open_bundles
from handsell.bundles.store import BundleStore
from handsell.config import Config
from handsell.core.errors import BundleError
from handsell.experiments.canary import CanaryTerms, describe_canary, parse_duration, parse_share, start_canary
from handsell.experiments.state import ExperimentStates, open_states


def promote(config: Config, bundle: str) -> None:
    """Make a bundle live; a running canary ends."""
    store = open_bundles(config)
    store.promote(bundle)
    states = open_states(config)
    canary = states.read().running_canary
    if canary is not None:
        is_same = canary.bundle == bundle
        states.end_canary("promoted" if is_same else "rolled_back", "by hand" if is_same else f"{bundle} was promoted")


def run_canary(
    config: Config, bundle: str, share: str, duration: str | None, min_slates: int | None, max_click_loss: float | None
) -> str:
    """Start a canary, change its share, or end it with a share of 0; return a sentence. Raises BundleError."""
    wanted = parse_share(share)
    states = open_states(config)
    if wanted == 0:
        running = states.read().running_canary
        if running is None or running.bundle != bundle:
            raise BundleError(f"canary: {bundle} is not running as a canary: see `handsell bundles list`")
        return end_canary(config) or ""
    terms = CanaryTerms(None if duration is None else parse_duration(duration), min_slates, max_click_loss)
    canary = start_canary(open_bundles(config), states, bundle, wanted, config.canary, terms)
    return (
        f"{describe_canary(canary)}\nthe live bundle stays {canary.live}; the running service promotes the candidate "
        "or rolls it back: see `handsell bundles list`"
    )


def end_canary(config: Config) -> str | None:
    """End the running canary by hand; return a sentence, or None if there is none."""
    ended = open_states(config).end_canary("rolled_back", "by hand")
    return None if ended is None else describe_canary(ended)


def name_rolled_back(config: Config) -> str:
    """Say what a rollback would end: the running canary, or else the live bundle."""
    canary = open_states(config).read().running_canary
    return f"from bundle {open_bundles(config).live()}" if canary is None else f"canary {canary.bundle}"


def roll_back(config: Config) -> str:
    """End the running canary, or else make the previously live bundle live again; return a sentence."""
    ended = end_canary(config)
    return f"live: {open_bundles(config).rollback()}" if ended is None else ended


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


def bundle_table(store: BundleStore, states: ExperimentStates | None = None) -> Table:
    """Return a table of all bundles, newest first, with the live one and the canary marked."""
    table, marks, notes = Table(), {store.live(): "live"}, []
    if states is not None and states.canary is not None:
        notes.append(describe_canary(states.canary))
        if states.canary.is_running:
            marks[states.canary.bundle] = "canary"
    for column in ("", "bundle", "created (UTC)", "data until", "NDCG@10"):
        table.add_column(column, no_wrap=True)
    for bundle_id in reversed(store.list()):
        try:
            about = store.show(bundle_id)
        except BundleError as error:  # of another version, say: the others are listed all the same
            table.add_row(marks.get(bundle_id, ""), bundle_id, "unreadable", "", "")
            notes.append(str(error))
            continue
        created, until = (datetime.fromtimestamp(us / 1e6, UTC) for us in (about.created_us, about.data_end_us))
        score = about.metrics.get("ndcg@10")
        table.add_row(
            marks.get(bundle_id, ""), bundle_id, f"{created:%Y-%m-%d %H:%M}", f"{until:%Y-%m-%d}",
            "" if score is None else f"{score:.4f}",
        )  # fmt: skip
    table.caption = "\n".join(notes) or None
    table.caption_justify = "left"
    return table
