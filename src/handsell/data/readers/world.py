"""The synthetic world as a source; events are generated when they are read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from handsell.data import world as generator
from handsell.data.config import WorldConfig
from handsell.data.readers.base import NULLABLE_EVENTS, SourcePart


@dataclass(frozen=True)
class World:
    world: WorldConfig
    ordered: ClassVar[bool] = True

    @property
    def source(self) -> str:
        return f"world:{self.world.model_dump_json()}"

    def files(self) -> list[Path]:
        return []

    def parts(self) -> list[SourcePart]:
        return [SourcePart(number) for number in range(generator.n_partitions(self.world))]

    def events(self, part: SourcePart) -> Iterator[pa.RecordBatch]:
        with tempfile.TemporaryDirectory() as scratch:
            events, truth = Path(scratch, "events"), Path(scratch, "truth")
            self.write(part, events, truth)
            for path in sorted(events.glob("*.parquet")):
                for batch in pq.ParquetFile(path).iter_batches():
                    yield batch.select(NULLABLE_EVENTS.names).cast(NULLABLE_EVENTS)

    def write(self, part: SourcePart, events: Path, truth: Path) -> None:
        """Write the events and true preferences of a part into two folders."""
        events.mkdir(parents=True, exist_ok=True)
        truth.mkdir(parents=True, exist_ok=True)
        generator.write_partition(self.world, part.number, events, truth)

    def items(self) -> pa.Table:
        return generator.build_items_table(self.world)

    def users(self) -> pa.Table:
        return generator.build_users_table(self.world)
