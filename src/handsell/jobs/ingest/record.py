"""What the data job has read so far, and what is new: parts of the source, ranges of the event store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from handsell.core.errors import HandsellError
from handsell.core.json_files import read_json
from handsell.core.paths import Layout
from handsell.data.numbering import STORE
from handsell.jobs.ingest.event_files import InputPart, PartSummary
from handsell.jobs.ingest.inputs import JobInputs
from handsell.jobs.ingest.partitions import PartitionCounts
from handsell.jobs.ingest.publication import link_file

NAME = "ingested.json"
RANGES_PER_PART = 10  # of the event store, which one task reads


@dataclass(frozen=True, slots=True)
class ReadPart:
    """A part of the source that has been read."""

    id: int
    description: str  # name, size and time of its file; a different one is another part
    events: int
    dropped: int
    first_us: int | None
    last_us: int | None


@dataclass(frozen=True, slots=True)
class WaitingEvents:
    """A file of events that were in the future when they were read."""

    name: str
    id: int
    events: int
    first_us: int


@dataclass(frozen=True)
class IngestRecord:
    """Everything that has been read, in the folder that holds the result."""

    settings: str = ""
    run: int = 0
    next_id: int = 0
    parts: tuple[ReadPart, ...] = ()  # in log order
    waiting: tuple[WaitingEvents, ...] = ()
    stored: int = 0  # events of the store that have been read
    unknown: int = 0  # events of the store whose type the config lacks
    stored_first_us: int | None = None
    events_through: int = 0
    partitions: tuple[PartitionCounts, ...] = ()
    changes_through: int = 0

    def save(self, folder: Path) -> None:
        (folder / NAME).write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> IngestRecord | None:
        """Return the record of the last run; None if there is none, or if it is damaged."""
        try:
            raw = read_json(folder / NAME, "")
            nested: dict[str, Any] = {
                "parts": tuple(ReadPart(**part) for part in raw.pop("parts")),
                "waiting": tuple(WaitingEvents(**one) for one in raw.pop("waiting")),
                "partitions": tuple(PartitionCounts(**counts) for counts in raw.pop("partitions")),
            }
            return cls(**raw, **nested)
        except (HandsellError, KeyError, TypeError):
            return None

    @property
    def events(self) -> int:
        """Events that have been read, without those that wait."""
        return sum(part.events for part in self.parts) + self.stored


def list_new_parts(record: IngestRecord, inputs: JobInputs, waiting: Path, now_us: int) -> list[InputPart]:
    """Return what a run reads, in the order in which ids get numbers: the source, then the store."""
    known = {part.description for part in record.parts}
    new = [part for description, part in inputs.parts if description not in known]
    found = [InputPart(0, record.next_id + n, "source", source=part) for n, part in enumerate(new)]
    found += [
        InputPart(0, one.id, "store" if one.id == STORE else "source", waiting=waiting / one.name)
        for one in record.waiting
        if one.first_us <= now_us
    ]
    fresh = [one for one in inputs.events if one.through > record.events_through]
    for start in range(0, len(fresh), RANGES_PER_PART):
        found.append(InputPart(0, STORE, "store", ranges=tuple(fresh[start : start + RANGES_PER_PART])))
    return [replace(part, number=number) for number, part in enumerate(found)]


def extend_record(
    record: IngestRecord, read: Sequence[tuple[InputPart, PartSummary]], inputs: JobInputs
) -> IngestRecord:
    """Return the record after a run, but for its partitions."""
    described = {part: description for description, part in inputs.parts}
    known = {part.description: part for part in record.parts}
    stored, unknown, firsts = record.stored, record.unknown, [record.stored_first_us]
    for part, summary in read:
        if part.origin == "store":
            stored, unknown, firsts = stored + summary.events, unknown + summary.unknown, [*firsts, summary.first_us]
        elif part.source is not None:
            description = described[part.source]
            known[description] = ReadPart(
                part.id, description, summary.events, summary.dropped, summary.first_us, summary.last_us
            )
        else:
            earlier = next(one for one in known.values() if one.id == part.id)
            last = max(filter(None, (earlier.last_us, summary.last_us)), default=None)
            known[earlier.description] = replace(earlier, events=earlier.events + summary.events, last_us=last)
    run = record.run + 1
    done = {part.waiting.name for part, _ in read if part.waiting}
    waiting = [one for one in record.waiting if one.name not in done]
    waiting += [
        WaitingEvents(f"{run:06d}-{part.number:05d}.parquet", part.id, summary.future, summary.future_first_us or 0)
        for part, summary in read
        if summary.future
    ]
    return replace(
        record, run=run, next_id=max([record.next_id, *(part.id + 1 for part, _ in read)]),
        parts=tuple(known[description] for description, _ in inputs.parts), waiting=tuple(waiting), stored=stored,
        unknown=unknown, stored_first_us=min((first for first in firsts if first is not None), default=None),
        events_through=inputs.events_through, changes_through=inputs.changes_through, settings=inputs.settings,
    )  # fmt: skip


def find_rebuild_reason(record: IngestRecord, inputs: JobInputs, most: int) -> str:
    """Return why everything must be read again, in words; empty if only new events are read.

    `most`: events of a partition.
    """
    if record.settings != inputs.settings:
        return "[data], [events], the number of partitions or the version of handsell have changed"
    present = {description for description, _ in inputs.parts}
    for part in record.parts:
        if part.description not in present:
            return f"a part of the source was removed or has changed ({_name(part.description)})"
    if inputs.events_through < record.events_through or inputs.changes_through < record.changes_through:
        return "compacted events that have been read are no longer there"
    if record.events > 2 * most * len(record.partitions):
        return "the partitions have become too large"
    return ""


def _name(description: str) -> str:
    file = json.loads(description)[0][0]
    return Path(str(file)).name if isinstance(file, str) else f"part {file}"


def has_waiting_due(record: IngestRecord, now_us: int) -> bool:
    return any(one.first_us <= now_us for one in record.waiting)


def save_waiting(record: IngestRecord, old: Layout, fresh: Layout) -> None:
    """Move the waiting events of this run into the new data folder, and link those of earlier runs."""
    for one in record.waiting:
        written = fresh.state / "waiting" / f"part-{one.name[7:12]}.parquet"
        target = fresh.items.parent / "waiting" / one.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if one.name.startswith(f"{record.run:06d}-"):
            written.rename(target)
        else:
            link_file(old.items.parent / "waiting" / one.name, target)
