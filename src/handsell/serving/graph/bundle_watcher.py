"""Following the live pointer: a promoted bundle is loaded beside the one that serves, tried, and then answered from.

Every replica looks at the pointer by itself. A stage's replica holds a few bundles and answers for the one that a
hop is stamped with; a gateway turns to the new one when the stages hold it and a real request through it lacks
nothing that it has today. What cannot be loaded or does not answer is refused, and the old one serves on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from handsell.bundles.store import BundleStore
from handsell.core.errors import BundleError, HandsellError
from handsell.core.paths import Layout
from handsell.serving.graph.loaded_bundle import LoadedBundle, Refused
from handsell.serving.graph.loading import LIVE, OpenedBundle, open_bundle
from handsell.serving.graph.service import Service
from handsell.serving.graph.stages import LocalStages, NotHeld
from handsell.serving.graph.warm_up import warm_up

log = logging.getLogger(__name__)

KEPT = 3  # bundles held by a stage's replica; their arrays are mapped files
HELD = "held"
LOADING = "loading"
ROUNDS = 6  # in a row in which every stage asked holds the bundle: calls go to replicas by turns
TRIES = 5  # requests through a new edition; the first are slow
PATIENCE_S = 60.0


class StageBundles:
    """What a stage's replica holds, by bundle. With `bundle` "live" a thread loads what the pointer names, and what
    a hop has asked for in vain; with an id only that one is held.
    """

    def __init__(self, config: str, bundle: str, load: Callable[[OpenedBundle], LocalStages]):
        opened = open_bundle(config, bundle)
        self._config, self._load = config, load
        self._store = BundleStore(Layout(opened.config.state).bundles)
        self._held = {opened.manifest.id: warm_up(load(opened), opened)}  # newest last; replaced as a whole
        self._refused: dict[str, str] = {}
        self._live: str | None = None  # as last seen
        self._wanted: set[str] = set(self._store.pointer().previous[-1:])  # for gateways that are still there
        self._wake = threading.Event()
        if bundle == LIVE:
            threading.Thread(target=self._follow, args=(opened.config.serving.follow_s,), daemon=True).start()

    def of(self, bundle: str) -> LocalStages:
        """Raises NotHeld, and then tries to load it."""
        try:
            return self._held[bundle]
        except KeyError:
            self._want(bundle)
            raise NotHeld(f"this replica holds {', '.join(self._held)}; {bundle} was asked for") from None

    def state(self, bundle: str) -> str:
        """HELD, LOADING, or why it cannot be loaded."""
        if bundle in self._held:
            return HELD
        if bundle not in self._refused:
            self._want(bundle)
        return self._refused.get(bundle, LOADING)

    def _want(self, bundle: str) -> None:
        self._wanted = {*self._wanted, bundle}
        self._wake.set()

    def _follow(self, every_s: float) -> None:
        while True:
            try:
                self.look()
            except Exception:
                log.exception("the live pointer cannot be followed; serving on")
            self._wake.wait(every_s)
            self._wake.clear()

    def look(self) -> None:
        """Load what is live or wanted and not held; the live one is the last to be dropped."""
        live, wanted = self._store.live(), self._wanted
        if live != self._live:  # what was refused may have been mended before it is promoted again
            self._live, self._refused = live, {}
        for bundle in (*sorted(wanted), live):
            if bundle is not None and bundle not in self._held and bundle not in self._refused:
                self._take(bundle)
        self._wanted = self._wanted - wanted
        if live in self._held:
            others = {bundle: stages for bundle, stages in self._held.items() if bundle != live}
            self._held = {**others, live: self._held[live]}

    def _take(self, bundle: str) -> None:
        try:
            opened = open_bundle(self._config, bundle)
            stages = warm_up(self._load(opened), opened)
        except Exception as error:
            log.warning("bundle %s is refused: %s", bundle, error, exc_info=not isinstance(error, HandsellError))
            self._refused = {**self._refused, bundle: str(error)}
            return
        kept = list(self._held.items())[-(KEPT - 1) :]
        self._held = dict([*kept, (bundle, stages)])


class Follower:
    """A gateway's: turns its service to the live bundle, or refuses that."""

    def __init__(self, service: Service, store: BundleStore, open_edition: Callable[[str], LoadedBundle]):
        self._service, self._store, self._open = service, store, open_edition

    async def run(self) -> None:
        """For ever; a failure is told and tried again."""
        while True:
            await asyncio.sleep(self._service.edition.config.serving.follow_s)
            try:
                await self.look()
            except Exception:
                log.exception("the live pointer cannot be followed; serving on")

    async def look(self) -> None:
        service, live = self._service, await asyncio.to_thread(self._store.live)
        if live == service.edition.release.bundle:
            if service.refused is not None:
                service.refuse(None)
            return
        if live is None or (service.refused is not None and service.refused.bundle == live):
            return
        try:
            edition = await self._edition(live)
            await self._tried(edition)
        except Exception as error:
            expected = isinstance(error, HandsellError)
            log.warning("bundle %s is refused, serving on: %s", live, error, exc_info=not expected)
            service.refuse(Refused(live, str(error) if expected else repr(error)))
            return
        service.turn_to(edition)
        log.info("serving bundle %s", live)

    async def _edition(self, bundle: str) -> LoadedBundle:
        before = self._service.before
        if before is not None and before.release.bundle == bundle:
            return before
        return await asyncio.to_thread(self._open, bundle)

    async def _tried(self, edition: LoadedBundle) -> None:
        """Returns when the edition answers as well as the present one; raises BundleError when it will not."""
        until = asyncio.get_running_loop().time() + PATIENCE_S
        today = set(await self._service.lacking(self._service.edition))
        held, tries, missing = 0, 0, [LOADING]
        while tries < TRIES:
            if asyncio.get_running_loop().time() > until:
                raise BundleError(f"the stages did not load it within {PATIENCE_S:.0f} s; the last said: {missing}")
            states = await edition.stages.states()
            if bad := {stage: state for stage, state in states.items() if state not in (HELD, LOADING)}:
                raise BundleError("; ".join(f"{stage}: {state}" for stage, state in bad.items()))
            missing = [stage for stage, state in states.items() if state != HELD]
            held = 0 if missing else held + 1
            if held < ROUNDS:
                await asyncio.sleep(0.05 if held else 0.2)
                continue
            try:
                worse = sorted(set(await self._service.lacking(edition)) - today)
            except NotHeld:
                held = 0
                continue
            if not worse:
                return
            tries += 1
        raise BundleError(f"a request through it goes without {', '.join(worse)}, which the present one has")
