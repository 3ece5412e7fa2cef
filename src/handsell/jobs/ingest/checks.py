"""Events that no recommender can be trained on are refused."""

from __future__ import annotations

from collections.abc import Sequence

from handsell.config import Config
from handsell.core.errors import DataError
from handsell.data.numbering import STORE, unknown_types_error
from handsell.data.readers.base import FEW_FUTURE, Reader
from handsell.jobs.ingest.event_files import PartSummary
from handsell.jobs.ingest.record import IngestRecord


def require_events(config: Config, reader: Reader, record: IngestRecord, read: Sequence[PartSummary]) -> None:
    """Raise DataError without events, for types without a weight, and for times that are equal or in the future."""
    future = sum(one.events for one in record.waiting if one.id != STORE)
    source = sum(part.events for part in record.parts)
    if future > FEW_FUTURE * (source + future):
        raise DataError(
            f"{future:,} of {source + future:,} events are in the future: expected at most {FEW_FUTURE:.0%}; correct "
            "the unit or the time zone of the times, `handsell doctor` shows examples"
        )
    if not record.events:
        files = ", ".join(map(str, reader.files()[:3]))
        dropped = sum(part.dropped for part in record.parts)
        raise DataError(
            f"no usable events in {files}: expected rows with user, item, type and time, got {dropped} rows that lack "
            "one of them; run `handsell doctor` to see examples"
        )
    unknown = {name for part in read for name in part.types} - set(config.events.names)
    if unknown:
        raise unknown_types_error(unknown, config.events)
    first = min((part.first_us for part in record.parts if part.first_us is not None), default=None)
    last = max((part.last_us for part in record.parts if part.last_us is not None), default=None)
    if reader.ordered and not record.stored and source > 1 and first == last:
        raise DataError(
            f"all {source:,} events have the same time: expected different times; map the column with the real time"
        )


def require_two(reader: Reader, items: int, users: int) -> None:
    """Raise DataError with fewer than two items or users."""
    for name, got, why in (("item", items, "nothing to rank"), ("user", users, "no other user to learn from")):
        if got < 2:
            raise DataError(
                f"{reader.source.partition(':{')[0]}: expected at least two {name}s, got {got}: there is {why}; "
                "check the column mapping, or use rules instead of a trained recommender"
            )
