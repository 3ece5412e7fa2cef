"""Sessions of the console: records in the memory of its one replica, found by a random cookie."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field

MOST_SESSIONS = 10_000
COOKIE = "handsell_console"


@dataclass(slots=True)
class Session:
    """`key` is the API key of the person, empty where the service needs none; `is_editing` is the switch "edit"."""

    key: str
    ends_s: float
    id: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    is_editing: bool = False
    message: str = ""  # shown once, on the next page


class SessionStore:
    """Sessions by id; where there are too many, the oldest ends."""

    def __init__(self, life_s: float):
        self._life_s = life_s
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def begin(self, key: str) -> Session:
        session = Session(key, time.monotonic() + self._life_s)
        self._sessions[session.id] = session
        if len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def find(self, id_: str) -> Session | None:
        """Return a session that has not ended."""
        session = self._sessions.get(id_)
        if session is not None and time.monotonic() >= session.ends_s:
            self.end(session)
            return None
        return session

    def end(self, session: Session) -> None:
        self._sessions.pop(session.id, None)
