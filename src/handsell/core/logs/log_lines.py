"""Log records as JSON lines, one format for all processes: who writes, about which request, no ids, no passwords.

A line of a request has its `recommendation_id` and `trace_id`, as soon as they are known; a line of a batch has lists.
User and item ids are hashed where they are fields (ID_FIELDS), and where a message or a traceback contains an id that
the request names.
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from itertools import islice
from typing import Any

from handsell.core.logs.id_hashing import IdHash
from handsell.core.logs.passwords import hide_passwords
from handsell.core.logs.request_trace import get_traces

ID_FIELDS = frozenset(
    f"{whose}_{form}"
    for whose in ("user", "item", "visitor", "anonymous", "session", "account")
    for form in ("id", "ids")
)
MAX_IDS = 50_000  # ids of one request that are looked for in a message

ListIds = Callable[[], Iterable[str]]
_named_ids: ContextVar[ListIds | None] = ContextVar("named_ids", default=None)


def set_named_ids(list_ids: ListIds | None) -> None:
    """Hash these ids in the messages of this task; they are listed only when a line is written."""
    _named_ids.set(list_ids)


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object, with the fields of `extra={"fields": {…}}`."""

    def __init__(self, process: str, hash_id: IdHash):
        super().__init__()
        self._process, self._hash = process, hash_id

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        for name in ("message", "exception"):
            if name in line:
                line[name] = self._hash_in_text(hide_passwords(line[name]))
        for name in ("recommendation_id", "trace_id"):
            if values := [value for trace in get_traces() if (value := getattr(trace, name))]:
                line[name] = values[0] if len(values) == 1 else values
        line |= {name: self._hash_field(name, value) for name, value in getattr(record, "fields", {}).items()}
        return json.dumps(line, ensure_ascii=False, default=str)

    def _hash_field(self, name: str, value: Any) -> Any:
        if name not in ID_FIELDS or value is None:
            return value
        return self._hash(value) if isinstance(value, str) else [self._hash(str(one)) for one in value]

    def _hash_in_text(self, text: str) -> str:
        """Replace the ids that the request names, as whole words."""
        list_ids = _named_ids.get()
        ids = {id_ for id_ in islice(list_ids(), MAX_IDS) if id_ in text} if list_ids is not None else ()
        if not ids:
            return text
        longest_first = "|".join(re.escape(id_) for id_ in sorted(ids, key=len, reverse=True) if id_)
        return re.sub(rf"(?<!\w)(?:{longest_first})(?!\w)", lambda found: self._hash(found[0]), text)


def log_as_json(process: str, hash_id: IdHash) -> None:
    """Write handsell's own log records to stderr as JSON lines; `process` is the name of the part that runs here."""
    logger = logging.getLogger("handsell")
    for handler in [each for each in logger.handlers if isinstance(each.formatter, JsonLines)]:
        logger.removeHandler(handler)
    # with its settings for throughput, Serve replaces sys.stderr by a logger that holds lines back
    handler = logging.StreamHandler(sys.stderr if isinstance(sys.stderr, io.TextIOBase) else sys.__stderr__)
    handler.setFormatter(JsonLines(process, hash_id))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
