"""The Serve deployment of the guard: one replica, with a thread that compares arms once a second."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from ray import serve

from handsell.config import load_config
from handsell.core.errors import HandsellError

if TYPE_CHECKING:
    from handsell.serving.guard_rails.counts import Counts

OPTIONS: dict[str, Any] = {
    "max_ongoing_requests": 16,
    "max_queued_requests": 64,
    "ray_actor_options": {"num_cpus": 0.05},
}
NICENESS = 5  # requests come first where processors are short
STOP_S = 5.0


@serve.deployment(name="ExperimentGuard", num_replicas=1, **OPTIONS)
class ExperimentGuardDeployment:
    """Stops broken arms and decides about the canary; Serve starts it again when it ends."""

    def __init__(self, config: str):
        from handsell.bundles.opening import open_bundles
        from handsell.events.store.opening import open_reader
        from handsell.experiments.state import open_states
        from handsell.serving.guard_rails.guard import Guard
        from handsell.serving.telemetry.process_telemetry import start_telemetry

        os.nice(NICENESS)
        loaded = load_config(config)
        start_telemetry(loaded, "ExperimentGuard")
        states, bundles = open_states(loaded, keeps_last=True), open_bundles(loaded, keeps_last=True)
        self._guard = Guard(loaded, states, bundles, open_reader(loaded))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._guard.run, args=(self._stop,), name="guard", daemon=True)
        self._thread.start()

    async def report(self, counts: Counts, refused: dict[str, str]) -> None:
        """Take a gateway's counts since its last report, and the bundles of arms that it cannot serve."""
        self._guard.report(counts, refused)

    def check_health(self) -> None:
        """Raise if the thread has ended, so that Serve replaces the replica."""
        if not self._thread.is_alive():
            raise HandsellError("the guard's thread has ended: Serve starts another replica")

    def __del__(self) -> None:
        if hasattr(self, "_thread"):
            self._stop.set()
            self._thread.join(STOP_S)
