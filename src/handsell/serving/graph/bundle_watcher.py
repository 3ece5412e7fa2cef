"""Watch the pointer to the live bundle: load a promoted bundle beside the current one, check it, and switch to it.

Every replica watches independently. A stage's replica holds a few bundles, and those of experiments' arms, and answers
from the one that a call names.
A gateway switches when the stages hold the new bundle and a probe request through it has no failure that the current
bundle does not have.
A bundle that cannot be loaded or does not answer is refused, and the current one stays. It is tried again after
RETRY_S: what was in the way may have passed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from handsell.bundles.live_catalog import ChangesNotRead
from handsell.bundles.opening import open_bundles
from handsell.bundles.store import BundleStore
from handsell.config import Config
from handsell.core.errors import BundleError, HandsellError, StorageError
from handsell.experiments.arm_bundles import ArmBundles
from handsell.experiments.state import open_states
from handsell.serving.graph.loading import LIVE, OpenedBundle, open_first_bundle
from handsell.serving.graph.stages import BundleNotHeld, LocalStages
from handsell.serving.graph.warm_up import warm_up
from handsell.serving.live.live_stages import LiveStages

if TYPE_CHECKING:  # of gateways: replicas of stages start without them
    from handsell.serving.graph.loaded_bundle import LoadedBundle
    from handsell.serving.graph.service import Service

log = logging.getLogger(__name__)

KEPT = 3  # bundles held by a stage's replica beside those of arms; their arrays are mapped files
HELD = "held"
LOADING = "loading"
ROUNDS = 6  # checks in a row that must find the bundle held: calls go to replicas in turns
TRIES = 5  # requests through a new bundle; the first are slow
MAX_LOADING_S = 60.0
RETRY_S = 300.0  # after which a refused bundle is tried again; loading a corrupt one costs the reading of its files


class HeldStages(Protocol):
    """What a replica holds of a bundle, such as LiveStages."""

    async def call(self, stage: str, operation: Any, *args: Any) -> Any: ...


@dataclass(frozen=True)
class HeldBundle:
    """A bundle's id, the deployment's config with the choices of the bundle's training, and the stages."""

    bundle: str
    config: Config
    stages: HeldStages


def hold_stages(load: Callable[[OpenedBundle], LocalStages]) -> Callable[[str, str], HeldBundle]:
    """Return the function that loads the stages of a bundle after their warm-up, on the live catalog."""

    def hold(config: str, bundle: str) -> HeldBundle:
        opened = open_first_bundle(config, bundle)
        stages = LiveStages(warm_up(load(opened), opened), opened.live, opened.config)
        return HeldBundle(opened.manifest.id, opened.config, stages)

    return hold


class StageBundles:
    """The stage objects of a replica, by bundle.

    With `bundle` "live" a thread loads the live bundle, those of experiments' arms and those that calls have named;
    with an id only that one.
    """

    def __init__(self, config: str, bundle: str, hold: Callable[[str, str], HeldBundle]):
        """hold: loads the stages of a bundle, by the file of the config and the bundle's id."""
        first = hold(config, bundle)
        self._config, self._hold = config, hold
        self._store = open_bundles(first.config, keeps_last=True)
        self._states, self._arms = open_states(first.config, keeps_last=True), ArmBundles(first.config)
        self._held = {first.bundle: first.stages}  # newest last; replaced as a whole
        self._refused: dict[str, str] = {}
        self._retry = math.inf  # monotonic time at which refused bundles are tried again
        self._seen: tuple[str | None, ArmBundles] = None, self._arms  # live bundle and arms, as last seen
        self._wanted: set[str] = set(self._store.pointer().previous[-1:])  # for gateways that have not switched yet
        self._wake = threading.Event()
        if bundle == LIVE:
            threading.Thread(target=self._watch, args=(first.config.serving.bundle_check_s,), daemon=True).start()

    def get(self, bundle: str) -> HeldStages:
        """The stage of a bundle; raises BundleNotHeld and begins to load it where it is not held."""
        try:
            return self._held[bundle]
        except KeyError:
            self._request(bundle)
            raise BundleNotHeld(f"bundle {bundle} is not held; this replica holds {', '.join(self._held)}") from None

    def state(self, bundle: str) -> str:
        """HELD, LOADING, or why it cannot be loaded."""
        if bundle in self._held:
            return HELD
        if bundle not in self._refused:
            self._request(bundle)
        return self._refused.get(bundle, LOADING)

    def _request(self, bundle: str) -> None:
        self._wanted = {*self._wanted, bundle}
        self._wake.set()

    def _watch(self, every_s: float) -> None:
        while True:
            try:
                self.check()
            except Exception:
                log.exception("the live pointer cannot be read; the current bundle stays")
            self._wake.wait(every_s)
            self._wake.clear()

    def check(self) -> None:
        """Load the live and the wanted bundles that are not held; the live one is the last to be dropped."""
        live, wanted = self._store.live(), self._wanted
        self._arms = self._read_arms()
        if (live, self._arms) != self._seen or monotonic() >= self._retry:  # a refused bundle may have been repaired
            self._seen, self._refused, self._retry = (live, self._arms), {}, math.inf
        self._wanted = self._wanted - wanted
        for bundle in (*sorted({*wanted, *self._arms.bundles}), live):
            if bundle is not None and bundle not in self._held and bundle not in self._refused:
                self._load_bundle(bundle)
        if live in self._held:
            others = {bundle: stages for bundle, stages in self._held.items() if bundle != live}
            self._held = {**others, live: self._held[live]}

    def _read_arms(self) -> ArmBundles:
        """Return the bundles of running arms; those last seen where the state of experiments cannot be read."""
        try:
            return self._arms.update(self._states.read())
        except (HandsellError, OSError) as error:
            log.warning("the state of experiments cannot be read; arms stay as they are: %s", error)
            return self._arms

    def _load_bundle(self, bundle: str) -> None:
        try:
            stages = self._hold(self._config, bundle).stages
        except (ChangesNotRead, StorageError) as error:
            log.warning("%s; trying again", error)
            self._wanted = {*self._wanted, bundle}
            return
        except Exception as error:
            log.warning("bundle %s is refused: %s", bundle, error, exc_info=not isinstance(error, HandsellError))
            self._refused = {**self._refused, bundle: str(error)}
            self._retry = min(self._retry, monotonic() + RETRY_S)
            return
        others = [held for held in self._held if held not in self._arms.bundles]
        dropped = others[: max(len(others) - KEPT + 1, 0)]
        self._held = {held: self._held[held] for held in self._held if held not in dropped} | {bundle: stages}


class BundleWatcher:
    """Switches a gateway's service to the live bundle, or refuses that bundle."""

    def __init__(self, service: Service, store: BundleStore, load: Callable[[str], LoadedBundle]):
        self._service, self._store, self._load = service, store, load
        self._retry = math.inf  # monotonic time at which a refused bundle is tried again

    async def run(self) -> None:
        """Check every `serving.bundle_check_s` seconds, until cancelled; a failure is logged and retried."""
        while True:
            await asyncio.sleep(self._service.bundle.config.serving.bundle_check_s)
            try:
                await self.check()
            except Exception:
                log.exception("the live pointer cannot be read; the current bundle stays")

    async def check(self) -> None:
        service, live = self._service, await asyncio.to_thread(self._store.live)
        if live == service.bundle.release.bundle:
            if service.refused is not None:
                service.clear_refusal()
            return
        refused = service.refused is not None and service.refused.bundle == live
        if live is None or (refused and monotonic() < self._retry):
            return
        try:
            bundle = await self._load_or_reuse(live)
            with service.hold(bundle):  # a promoted canary is dropped as an arm at the same time
                await compare_with_current(service, bundle)
                service.switch_to(bundle)
        except (ChangesNotRead, StorageError) as error:
            log.warning("%s; the current bundle stays, trying again", error)
            return
        except Exception as error:
            expected = isinstance(error, HandsellError)
            log.warning("bundle %s is refused; the current one stays: %s", live, error, exc_info=not expected)
            service.refuse(live, str(error) if expected else repr(error))
            self._retry = monotonic() + RETRY_S
            return
        log.info("serving bundle %s", live)

    async def _load_or_reuse(self, bundle: str) -> LoadedBundle:
        held = self._service.find_bundle(bundle)
        return held if held is not None else await asyncio.to_thread(self._load, bundle)


async def compare_with_current(service: Service, bundle: LoadedBundle) -> None:
    """Return when the bundle answers as well as the current one; raises BundleError when it does not."""
    until = asyncio.get_running_loop().time() + MAX_LOADING_S
    failing_today = set(await service.probe(service.bundle))
    held, tries, missing = 0, 0, [LOADING]
    while tries < TRIES:
        if asyncio.get_running_loop().time() > until:
            raise BundleError(f"{', '.join(missing)} did not load the bundle within {MAX_LOADING_S:.0f} s")
        states = await bundle.stages.states()
        if bad := {stage: state for stage, state in states.items() if state not in (HELD, LOADING)}:
            raise BundleError("; ".join(f"{stage}: {state}" for stage, state in bad.items()))
        missing = [stage for stage, state in states.items() if state != HELD]
        held = 0 if missing else held + 1
        if held < ROUNDS:
            await asyncio.sleep(0.05 if held else 0.2)
            continue
        try:
            worse = sorted(set(await service.probe(bundle)) - failing_today)
        except BundleNotHeld:
            held = 0
            continue
        if not worse:
            return
        tries += 1
    raise BundleError(f"{', '.join(worse)} fails with this bundle and works with the current one")
