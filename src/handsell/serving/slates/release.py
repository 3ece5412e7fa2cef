"""The versions that an answer is made with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from handsell.serving.http.answers import ReleaseStamp, SlateStamp


@dataclass(frozen=True)
class Release:
    """The versions that an answer was made with, stamped on answers, impressions and stage calls."""

    bundle: str
    snapshot: int
    catalog: int
    made_us: int = 0  # when the bundle was made; not stamped, like the next
    data_end_us: int = 0  # time of the newest event in its data

    @cached_property
    def stamp(self) -> ReleaseStamp:
        return ReleaseStamp(bundle=self.bundle, snapshot=self.snapshot, catalog=self.catalog)

    def with_rules(self, version: str | None) -> SlateStamp:
        return SlateStamp(bundle=self.bundle, snapshot=self.snapshot, catalog=self.catalog, rules=version)
