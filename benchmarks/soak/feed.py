"""What one run of the feeder appends."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Feed:
    """Numbers of events and slates; `first` is the number of the first of them, so that their ids are new."""

    config: str
    events: int
    slates: int
    first: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))
