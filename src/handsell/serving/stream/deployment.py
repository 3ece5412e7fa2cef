"""The Serve deployment of the stream processor: one replica, with a thread that follows the event store."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from handsell.config import Config, load_config
from handsell.core.errors import HandsellError
from handsell.serving.graph.remote import call

OPTIONS: dict[str, Any] = {
    "max_ongoing_requests": 16,
    "max_queued_requests": 64,
    "ray_actor_options": {"num_cpus": 0.05},
}
NICENESS = 5  # requests come first where processors are short
SAVE_TIMEOUT_S = 10.0


@serve.deployment(name="StreamProcessor", num_replicas=1, **OPTIONS)
class StreamProcessorDeployment:
    """Writes the online rows of users: exactly one replica, which Serve starts again when it ends."""

    def __init__(self, config: str, log: DeploymentHandle | None, open_store: Callable[[Config], Any]):
        from handsell.events.store.opening import open_reader
        from handsell.serving.graph.loading import LIVE, await_bundle
        from handsell.serving.live.state_follower import FOLLOWER as STATE_FOLLOWER
        from handsell.serving.stream.processor import Processor
        from handsell.serving.stream.snapshots import ServedCatalog
        from handsell.serving.telemetry.process_telemetry import start_telemetry

        os.nice(NICENESS)
        loaded = load_config(config)
        start_telemetry(loaded, "StreamProcessor")
        await_bundle(loaded, LIVE)
        STATE_FOLLOWER.follow(loaded)
        self._processor = Processor(
            loaded, open_store(loaded), open_reader(loaded), ServedCatalog(loaded), save_through(loaded, log)
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._processor.run, args=(self._stop,), name="stream", daemon=True)
        self._thread.start()

    async def progress(self) -> Any:
        """How far the processor is."""
        return self._processor.progress

    async def recent_likes(self, known: int) -> Any:
        """The likes since the live bundle's data (RecentLikes), None if this version is known."""
        likes = self._processor.likes
        return None if likes is None or likes.version == known else likes

    def check_health(self) -> None:
        """Raise if the thread has ended, so that Serve replaces the replica."""
        if not self._thread.is_alive():
            raise HandsellError("the stream processor's thread has ended: Serve starts another replica")

    def __del__(self) -> None:
        if hasattr(self, "_stop"):
            self._stop.set()  # the thread is not waited for: it needs this loop to save its position


def save_through(config: Config, log: DeploymentHandle | None) -> Callable[[str, int], None]:
    """Return a function that stores a position, for a thread; it goes through the store's writer where there is one."""
    from handsell.events.store.opening import has_one_writer, open_writer

    if log is not None and has_one_writer(config):
        loop = asyncio.get_running_loop()

        def save_by_call(name: str, offset: int) -> None:
            # in the replica's loop: with Serve's throughput settings, a handle cannot be used outside of one
            saved = asyncio.run_coroutine_threadsafe(call(log, "call", "save_position", name, offset), loop)
            saved.result(SAVE_TIMEOUT_S)

        return save_by_call
    writer = open_writer(config)

    def save(name: str, offset: int) -> None:
        writer.save_position(name, offset).result(timeout=SAVE_TIMEOUT_S)

    return save
