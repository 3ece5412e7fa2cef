"""Keep the bundles of experiments' arms loaded in a gateway, and the state of experiments up to date."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from handsell.bundles.live_catalog import ChangesNotRead
from handsell.core.errors import HandsellError, StorageError
from handsell.experiments.arm_bundles import ArmBundles
from handsell.experiments.state import StateFile
from handsell.serving.graph.bundle_watcher import compare_with_current
from handsell.serving.graph.loaded_bundle import LoadedBundle
from handsell.serving.graph.service import Service

log = logging.getLogger(__name__)

FIXED = "this service was deployed with a fixed bundle: deploy it with bundle `live` for arms with their own bundles"


class ArmWatcher:
    """Reads the state of experiments and loads the bundles of running arms; `load` is None with a fixed bundle.

    A bundle becomes available to its arm when it has answered as well as the current one; one that does not is refused,
    which `Service.refused_arms` names. A stopped arm's bundle is dropped.
    """

    def __init__(self, service: Service, states: StateFile, load: Callable[[str], LoadedBundle] | None):
        self._service, self._states, self._load = service, states, load
        self._arms = ArmBundles(service.config)
        self._loading: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Check every `serving.bundle_check_s` seconds, until cancelled; a failure is logged and retried."""
        try:
            while True:
                try:
                    await self.check()
                except Exception as error:
                    log.warning("the state of experiments cannot be read; it stays as it is: %s", error)
                await asyncio.sleep(self._service.config.serving.bundle_check_s)
        finally:
            if self._loading is not None:
                self._loading.cancel()

    async def check(self) -> None:
        """Read the state; loading, which takes seconds, goes on in the background."""
        service = self._service
        states = await asyncio.to_thread(self._states.read)
        service.set_experiment_states(states)
        arms = self._arms.update(states)
        if arms != self._arms:  # a bundle that was refused before may have been repaired
            service.refused_arms, self._arms = {}, arms
        self._drop()
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self.load())

    def _drop(self) -> None:
        service = self._service
        dropped = [held for bundle, held in service.arm_bundles.items() if bundle not in self._arms.bundles]
        if dropped:
            service.arm_bundles = {b: held for b, held in service.arm_bundles.items() if b in self._arms.bundles}
            for held in dropped:
                service.close_unused(held)

    async def load(self) -> None:
        """Load the bundles of running arms that this gateway neither holds nor has refused."""
        service = self._service
        for bundle in self._arms.bundles:
            if bundle in service.refused_arms or bundle in service.arm_bundles:
                continue
            try:
                loaded = await self._load_or_reuse(bundle)
                with service.hold(loaded):
                    if loaded is not service.bundle:
                        await compare_with_current(service, loaded)
                    if bundle in self._arms.bundles:
                        service.arm_bundles = {**service.arm_bundles, bundle: loaded}
                        log.info("bundle %s is ready for its arm", bundle)
            except (ChangesNotRead, StorageError) as error:
                log.warning("%s; trying again", error)
                continue
            except Exception as error:
                expected = isinstance(error, HandsellError)
                log.warning("bundle %s of an arm is refused: %s", bundle, error, exc_info=not expected)
                service.refused_arms = {**service.refused_arms, bundle: str(error) if expected else repr(error)}

    async def _load_or_reuse(self, bundle: str) -> LoadedBundle:
        held = self._service.find_bundle(bundle)
        if held is not None:
            return held
        if self._load is None:
            raise HandsellError(FIXED)
        return await asyncio.to_thread(self._load, bundle)
