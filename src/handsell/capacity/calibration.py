"""Measured costs of one deployment on one machine: `python -m benchmarks capacity` writes the file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError, model_validator

from handsell.core.errors import ConfigError
from handsell.core.section import Section

Stage = Literal["gateway", "candidates", "ranking", "reranking"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class MeasuredCatalog(Section):
    """The deployment that was measured."""

    items: int = Field(ge=1)
    users: int = Field(ge=1)
    bundle_mib: float = Field(gt=0, description="size of one bundle")
    candidates_ms_per_decade: float = Field(
        ge=0, description="CPU ms that a request costs Candidates more for ten times the items"
    )


class MeasuredLoad(Section):
    """Costs and latency at one constant rate of requests."""

    qps: float = Field(gt=0)
    p50_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    cpu_ms: dict[Stage, float] = Field(description="CPU ms of a request, by stage")
    other_cpu_ms: float = Field(ge=0, description="CPU ms of a request in all other processes: proxies, event log, Ray")

    @model_validator(mode="after")
    def has_every_stage(self) -> MeasuredLoad:
        if missing := set(STAGES) - set(self.cpu_ms):
            raise ValueError(f"expected cpu_ms of {', '.join(STAGES)}; missing: {', '.join(sorted(missing))}")
        return self

    @property
    def total_ms(self) -> float:
        return sum(self.cpu_ms.values()) + self.other_cpu_ms


class MeasuredMemory(Section):
    """MiB of a warm replica: what is its own, and bundle files that it maps; and of Ray's processes of a node."""

    private_mib: dict[Stage, float]
    mapped_mib: dict[Stage, float]
    node_mib: float = Field(gt=0)


class MeasuredStores(Section):
    """Sizes by row, and CPU of an event."""

    event_bytes: float = Field(gt=0, description="of the event store, SQLite with its indexes")
    slate_bytes: float = Field(gt=0)
    compacted_event_bytes: float = Field(gt=0)
    compacted_slate_bytes: float = Field(gt=0)
    online_user_bytes: float = Field(gt=0, description="of the online store")
    event_cpu_ms: float = Field(gt=0, description="of an event in POSTs of ten, all processes")


class CapacityCalibration(Section):
    measured: str = Field(description="when")
    machine: str
    cores: int = Field(ge=1)
    catalog: MeasuredCatalog
    loads: tuple[MeasuredLoad, ...] = Field(min_length=2, description="in ascending order of qps")
    memory: MeasuredMemory
    stores: MeasuredStores

    @model_validator(mode="after")
    def loads_ascend(self) -> CapacityCalibration:
        rates = [load.qps for load in self.loads]
        if rates != sorted(set(rates)):
            raise ValueError(f"expected loads in ascending order of qps, got {rates}")
        return self


def read_calibration(path: Path) -> CapacityCalibration:
    """Read a calibration; raises ConfigError with the key, what was expected, and how to measure."""
    again = "measure it again: python -m benchmarks capacity --out FILE"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no calibration file {path}: {again}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}; {again}") from None
    try:
        return CapacityCalibration.model_validate(raw)
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "the file"
        raise ConfigError(f"{path}: {where}: {wrong['msg']}; {again}") from None
