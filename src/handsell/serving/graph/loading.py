"""Open a bundle for serving: the deployment's config, verified files, checked features."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from handsell.bundles.live_catalog import open_live_catalog
from handsell.bundles.manifest import Manifest
from handsell.bundles.opening import open_bundles
from handsell.bundles.stages import apply_choices
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config, load_config
from handsell.core.errors import BundleError, FeatureError
from handsell.eligibility.mask import Eligibility
from handsell.events.live_catalog import FOLLOWER, LiveCatalog
from handsell.features.views import SERVICES, list_service_columns
from handsell.retrieval.registry import load as load_retriever
from handsell.serving.graph.popularity_fallback import PopularItems
from handsell.serving.live.state_follower import FOLLOWER as STATE_FOLLOWER

log = logging.getLogger(__name__)

SERVING_SERVICE = "user_serving_v1"
LIVE = "live"  # the promoted bundle, also after another promotion
FIRST_BUNDLE_S = 3_600.0  # in which a first bundle is trained
FIRST_CHECK_S = 0.3


@dataclass(frozen=True)
class OpenedBundle:
    """A bundle whose files have the hashes of its manifest."""

    config: Config
    path: Path
    manifest: Manifest
    snapshot: Snapshot  # without live changes
    live: LiveCatalog


def resolve_bundle_id(config: Config, bundle: str) -> str:
    """Return the bundle's id, for LIVE that of the promoted one; raise BundleError if no bundle is live."""
    live = find_bundle_id(config, bundle)
    if live is None:
        raise BundleError(
            f"no bundle of {config.name} is live: run `handsell train {config.source}` first, or name one by its id"
        )
    return live


def find_bundle_id(config: Config, bundle: str) -> str | None:
    """Return the bundle's id, for LIVE that of the promoted one, None before the first promotion."""
    return open_bundles(config, keeps_last=True).live() if bundle == LIVE else bundle


def await_bundle(config: Config, bundle: str) -> str:
    """Return the bundle's id, for LIVE that of the promoted one, if need be after a wait for the first promotion.

    `handsell up` starts the service while the first bundle is trained. Raises BundleError after an hour.
    """
    if find_bundle_id(config, bundle) is None:
        log.warning("no bundle of %s is live: waiting for the first one", config.name)
    until = time.monotonic() + FIRST_BUNDLE_S
    while find_bundle_id(config, bundle) is None and time.monotonic() < until:
        time.sleep(FIRST_CHECK_S)
    return resolve_bundle_id(config, bundle)


def open_first_bundle(config_path: str, bundle: str) -> OpenedBundle:
    """`open_bundle` for replicas, which may start before a bundle is live: they wait for the first one."""
    return open_bundle(config_path, await_bundle(load_config(config_path), bundle))


def open_bundle(config_path: str, bundle: str) -> OpenedBundle:
    """Load config and bundle; raises ConfigError or BundleError naming what is wrong and what to do."""
    config = load_config(config_path)
    STATE_FOLLOWER.follow(config)
    store = open_bundles(config, keeps_last=True)
    bundle = resolve_bundle_id(config, bundle)
    manifest = store.verify(bundle)
    path = store.local_path(bundle)
    try:
        config, snapshot = apply_choices(config, path), Snapshot.load(path / "snapshot")
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(
            f"bundle {bundle}: its item snapshot cannot be read ({error}): train a new one, or roll back"
        ) from error
    return OpenedBundle(config, path, manifest, snapshot, follow_catalog(config, manifest, snapshot))


def follow_catalog(config: Config, manifest: Manifest, snapshot: Snapshot) -> LiveCatalog:
    """Read the catalog changes after those that the bundle includes, and follow them; raises ChangesNotRead."""
    return FOLLOWER.follow(open_live_catalog(config, manifest, snapshot))


def check_features(opened: OpenedBundle, check: Callable[[str, tuple[str, ...]], None]) -> None:
    """Check columns with the feature store's `check(service, names)`; raises BundleError naming the missing ones."""
    for service in dict.fromkeys((opened.manifest.feature_service, SERVING_SERVICE)):
        if service not in SERVICES:
            raise BundleError(
                f"bundle {opened.manifest.id} needs feature service {service}; this version has "
                f"{', '.join(SERVICES)}: train a new bundle"
            )
        wanted = dict.fromkeys(list_service_columns(opened.config, service))
        if service == opened.manifest.feature_service:  # it was trained on these, whatever the config says now
            wanted = dict.fromkeys((*opened.manifest.service_features, *wanted))
        try:
            check(service, tuple(wanted))
        except FeatureError as error:
            raise BundleError(f"bundle {opened.manifest.id} is refused: {error}") from None


def load_popularity(opened: OpenedBundle) -> PopularItems:
    """Popularity from the bundle's popularity retriever; without one, from the snapshot's counts."""
    folder = opened.path / "retrievers" / "popularity"
    popularity = load_retriever("popularity", folder).popularity if folder.is_dir() else None  # type: ignore[attr-defined]
    eligibility = Eligibility.of(opened.snapshot, opened.config)
    return PopularItems(opened.snapshot, eligibility, popularity)
