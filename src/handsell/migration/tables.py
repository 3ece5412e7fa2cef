"""The tables that an import writes into its folder."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from handsell.core.errors import DataError
from handsell.migration.event_table import EventTable
from handsell.migration.row_spool import RowSpool
from handsell.migration.tally import Tally


class ImportTables:
    """Events, items and users of one import, and its counts."""

    def __init__(self, folder: Path):
        self.folder, self.tally = folder, Tally()
        self.events = EventTable(folder / "events.parquet", self.tally)
        self.items = RowSpool("items", folder / "items.parquet", self.tally)
        self.users = RowSpool("users", folder / "users.parquet", self.tally)
        self.schemas: dict[str, pa.Schema] = {}

    def write(self) -> None:
        """Write what has been added; raises DataError if there is no event."""
        if not self.events.close():
            told = "; ".join(line.strip() for line in self.tally.to_lines()) or "no record"
            raise DataError(
                f"SOURCE has no event that can be used ({told}): expected records of what users did with items, with a "
                "user, an item, a type and a time"
            )
        for spool in (self.items, self.users):
            if (schema := spool.write()) is not None:
                self.schemas[spool.kind] = schema

    def close(self) -> None:
        """Remove the spooled rows."""
        self.items.close()
        self.users.close()
