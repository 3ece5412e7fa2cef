"""The served catalog as the console sees it: the live bundle's items with all live changes, and their words."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from handsell.bundles.live_catalog import open_live_catalog
from handsell.bundles.manifest import Manifest
from handsell.bundles.opening import open_bundles
from handsell.catalog.snapshot import Snapshot
from handsell.catalog.text_search import TextIndex
from handsell.config import Config
from handsell.console.visit import get_visit
from handsell.core.batches import NONE
from handsell.core.clock import Clock
from handsell.core.errors import BundleError
from handsell.core.paths import Layout
from handsell.events.item_exposure import ItemExposure, read_exposure
from handsell.events.live_catalog import LiveCatalog
from handsell.events.store.interface import EventStoreError
from handsell.events.store.opening import open_reader

log = logging.getLogger(__name__)

FRESH_S = 1.0  # for which a version is shown without looking for changes


@dataclass(frozen=True)
class CatalogView:
    """One version of the catalog; `is_stale` if the event store did not answer, so that changes may be missing."""

    config: Config
    manifest: Manifest
    snapshot: Snapshot
    is_stale: bool = False

    @property
    def now(self) -> int:
        """µs by the service's clock."""
        return Clock.of(self.config.serving.clock, self.manifest).now()


class ShownCatalog:
    """Opens the live bundle at the first question and follows it; methods may block, and threads may share it."""

    def __init__(self, config: Config):
        self._config, self._bundles = config, open_bundles(config, keeps_last=True)
        self._lock, self._index_lock = threading.Lock(), threading.Lock()
        self._live: LiveCatalog | None = None
        self._view: CatalogView | None = None
        self._read_at = -FRESH_S
        self._index: tuple[str, TextIndex] | None = None  # of a bundle

    def read(self, is_fresh: bool = False) -> CatalogView:
        """Return the present version, at most FRESH_S old; with `is_fresh`, look for changes in any case.

        Raises BundleError if no bundle is live.
        """
        with self._lock:
            if self._view is None or is_fresh or time.monotonic() - self._read_at >= FRESH_S:
                self._view = self._refresh()
                self._read_at = time.monotonic()
            return self._view

    def search(self, view: CatalogView, text: str, most: int) -> list[int]:
        """Return the items whose words match a text: the one of this id, then the best first.

        The first search of a bundle reads all items.
        """
        with self._index_lock:
            bundle = view.manifest.id
            if self._index is None or self._index[0] != bundle:
                self._index = bundle, self._open_index(view)
            index = self._index[1]
        index.follow(view.snapshot)
        exact = view.snapshot.items.number([text])
        found = dict.fromkeys([*exact[exact != NONE].tolist(), *index.search(text, most)])
        return [number for number in found if number < len(view.snapshot)][:most]

    def is_indexed(self, view: CatalogView) -> bool:
        """Return whether a search answers at once."""
        return self._index is not None and self._index[0] == view.manifest.id

    def read_exposure(self, view: CatalogView, item_id: str) -> ItemExposure:
        """Raises EventStoreError or DataError."""
        with closing(open_reader(self._config)) as reader:
            return read_exposure(reader, Layout(self._config.state).compacted, item_id, view.now)

    def _refresh(self) -> CatalogView:
        bundle = self._bundles.live()
        if bundle is None:
            raise BundleError(
                f"no bundle of {self._config.name} is live, so there is no catalog yet: run `handsell train CONFIG`"
            )
        before = self._view
        if before is None or self._live is None or before.manifest.id != bundle:
            manifest, folder = self._bundles.verify_part(bundle, "snapshot", _is_snapshot)
            base = Snapshot.load(folder / "snapshot")
            self._live = open_live_catalog(self._config, manifest, base)
            return CatalogView(self._config, manifest, self._live.snapshot)
        try:
            self._live.read()
            is_stale = False
        except EventStoreError as error:
            log.warning("catalog changes cannot be read; the last known ones are shown: %s", error)
            is_stale = True
        return CatalogView(self._config, before.manifest, self._live.snapshot, is_stale)

    def _open_index(self, view: CatalogView) -> TextIndex:
        folder = Layout(self._config.state).console
        path = folder / f"search-{view.manifest.id}.db"
        for old in folder.glob("search-*"):
            if not old.name.startswith(path.stem):  # of another bundle
                old.unlink(missing_ok=True)
        return TextIndex(path, view.snapshot)


def find_catalog(request: Request) -> ShownCatalog:
    """Return the catalog that all pages of this console share."""
    state = request.app.state
    if not hasattr(state, "shown_catalog"):
        state.shown_catalog = ShownCatalog(get_visit(request).config)
    found: ShownCatalog = state.shown_catalog
    return found


def _is_snapshot(path: str) -> bool:
    return Path(path).parts[:1] == ("snapshot",)
