"""Keep this machine's copy of what serving needs of the published state: Feast's registry and the keys of the tables.

Requests read the local copies. While object storage does not answer, they stay as they are.
"""

from __future__ import annotations

import logging
import threading
import time

from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.storage.published_state import KEYS, REGISTRY, PublishedState, open_published_state

log = logging.getLogger(__name__)

FOLLOW_S = 5.0
SERVED = (REGISTRY, KEYS)


class StateFollower:
    """One thread per process pulls the parts that serving reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, PublishedState] = {}  # by URI
        self._thread: threading.Thread | None = None
        self._failing = False

    def follow(self, config: Config) -> None:
        """Pull once now, and every FOLLOW_S seconds from now on; without object storage, nothing."""
        uri = config.storage_uri
        if uri is None:
            return
        with self._lock:
            known = self._states.get(uri)
            self._states[uri] = state = known or open_published_state(config)
        if known is None:
            self._pull(state)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="published-state")
                self._thread.start()

    def _pull(self, state: PublishedState) -> None:
        try:
            for part in state.pull(SERVED):
                log.info("%s is newer in object storage: fetched", part)
        except (HandsellError, OSError) as error:
            if not self._failing:
                log.warning("%s; registry and keys stay as they are", error)
            self._failing = True
        else:
            self._failing = False

    def _run(self) -> None:
        while True:
            time.sleep(FOLLOW_S)
            with self._lock:
                states = list(self._states.values())
            for state in states:
                self._pull(state)


FOLLOWER = StateFollower()
"""That of this process."""
