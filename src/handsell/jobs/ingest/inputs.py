"""The input of the data job: the source, what was copied from the event store, and whose events count for whom."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from handsell.config import Config
from handsell.core.paths import Layout
from handsell.data.readers.base import Reader, SourcePart
from handsell.data.readers.detect import open_reader
from handsell.data.readers.formats.file_access import get_address
from handsell.events.compacted_files import CompactedRange, list_ranges
from handsell.events.compaction import compact
from handsell.events.store import opening
from handsell.jobs.ingest.person_rules import PersonRules

VERSION = 4  # increase when the output of the data job changes


@dataclass(frozen=True)
class JobInputs:
    """Everything that a run may read; `parts` have descriptions, which change when their file does."""

    reader: Reader
    parts: list[tuple[str, SourcePart]]  # in log order
    events: list[CompactedRange]
    changes: list[CompactedRange]
    rules: PersonRules
    settings: str
    fingerprint: str  # of all of this

    @property
    def events_through(self) -> int:
        return self.events[-1].through if self.events else 0

    @property
    def changes_through(self) -> int:
        return self.changes[-1].through if self.changes else 0


def find_inputs(config: Config, progress: Callable[[str], None]) -> JobInputs:
    """Copy what is new in the event store, and list everything that can be read."""
    reader, compacted = open_reader(config, progress), Layout(config.state).compacted
    copied = compact(config, progress)
    if copied.events or copied.changes:
        progress(copied.to_text())
    with closing(opening.open_reader(config)) as store:
        rules = PersonRules.read(store)
    files = [[get_address(file), (about := file.stat()).st_size, about.st_mtime_ns] for file in reader.files()]
    parts, settings = _describe_parts(reader, files), _describe_settings(config, reader)
    events, changes = list_ranges(compacted, "events"), list_ranges(compacted, "changes")
    offsets = [events[-1].through if events else 0, changes[-1].through if changes else 0]
    people = [sorted(rules.owners.items()), sorted(rules.erased.items())]
    fingerprint = _digest([settings, files, [description for description, _ in parts], offsets, people])
    return JobInputs(reader, parts, events, changes, rules, settings, fingerprint)


def _describe_settings(config: Config, reader: Reader) -> str:
    """Return a digest of what decides how an event is read."""
    sections = [config.data.model_dump(mode="json"), config.events.model_dump(mode="json", exclude={"store"})]
    return _digest([VERSION, reader.source, sections, config.jobs.partitions])


def _describe_parts(reader: Reader, files: list[list]) -> list[tuple[str, SourcePart]]:
    """Return the parts of the source with the name, size and time of their file, or else of all files."""
    by_name = {file[0]: file for file in files}
    return [
        (json.dumps([by_name.get(part.path, [part.number, files]), part.row_groups, part.first_row]), part)
        for part in reader.parts()
    ]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
