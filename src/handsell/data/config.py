"""Config of the source data, event types and windows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from handsell.core.section import Section
from handsell.core.units import MINUTE_US


class CsvFormat(Section):
    """Format of CSV files. Unset keys are detected in each file."""

    delimiter: str | None = Field(None, min_length=1, max_length=1, description="character between columns")
    quote: str | None = Field(None, max_length=1, description='character around values; "" if there is none')
    escape: str | None = Field(
        None, min_length=1, max_length=1, description="character before a quote in a value: the quote itself, or `\\`"
    )
    encoding: str | None = Field(None, description="name of a Python codec, such as `cp1252` or `shift_jis`")
    decimal: Literal[".", ","] | None = Field(None, description="decimal sign of numbers; the other one groups digits")
    comment: str | None = Field(None, min_length=1, max_length=1, description="character at the start of ignored lines")
    skip_lines: int = Field(0, ge=0, description="lines before the header")
    names: tuple[str, ...] = Field((), description="column names of files without a header")

    @field_validator("encoding")
    @classmethod
    def _require_codec(cls, encoding: str | None) -> str | None:
        if encoding is not None:
            try:
                "".encode(encoding)
            except LookupError:
                raise ValueError(
                    f"expected a Python codec such as utf-8, cp1252 or shift_jis; got {encoding}"
                ) from None
        return encoding


class TableSource(Section):
    """A table of the user: a Parquet or CSV file, or a folder of them."""

    path: str = Field(
        description="file, folder or URI (s3://, gs://, https://), relative to the TOML file (or to DATA when given)"
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="canonical column = column in the table; unnamed ones map to themselves",
    )
    list_separator: str | None = Field(
        None,
        min_length=1,
        description="separator of creators and tags stored as text; by default the first of `|`, `;` and (tags only) "
        "`,` that is in the column",
    )
    csv: CsvFormat = CsvFormat()


class TablesConfig(Section):
    """The user's own tables."""

    events: TableSource = Field(description="who did what with which item, and when")
    items: TableSource | None = Field(None, description="item metadata; without it, only items with events are known")
    users: TableSource | None = Field(None, description="user attributes")


class WorldConfig(Section):
    """The synthetic music service. Equal settings give equal bytes."""

    seed: int = Field(7, ge=0, description="seed of all random draws")
    users: int = Field(3_000, ge=2, description="listeners")
    items: int = Field(8_000, ge=2, description="tracks")
    artists: int = Field(800, ge=1, description="creators of the tracks")
    tags: int = Field(40, ge=2, description="genres and moods")
    days: int = Field(45, ge=3, description="length of the log that ends at `end`")
    sessions_per_user_week: float = Field(3.0, gt=0, description="mean over listeners; the distribution is skewed")
    slate: int = Field(10, ge=1, description="items that the logging policy shows per session")
    organic_share: float = Field(0.6, ge=0, le=1, description="share of listens from search and library")
    end: str = Field("2026-06-30T00:00:00Z", description="end of the log")
    users_per_partition: int = Field(1_000, ge=1, description="listeners per task; limits its memory")


class DataConfig(Section):
    format: Literal["auto", "movielens", "atomic", "sequences", "tables", "world"] = Field(
        "auto", description="layout of the source; auto detects it from the files in the folder"
    )
    path: str | None = Field(
        None,
        description="folder of the source, relative to the TOML file, or the URI of tables; DATA overrides it",
    )
    download: Literal["ml-latest-small", "ml-100k", "ml-1m", "ml-25m", "ml-32m"] | None = Field(
        None, description="MovieLens data set to download if path is not set"
    )
    recommend_deleted_items: bool = Field(
        False,
        description="recommend items that have events but no row in the items table; by default they count as deleted: "
        "they stay in histories and in training, and are not recommended. Without an items table, no item is deleted",
    )
    world: WorldConfig = WorldConfig()
    tables: TablesConfig | None = Field(None, description="required with format = tables")


class EventType(Section):
    """How events of one type count as feedback."""

    weight: float = Field(
        1.0,
        allow_inf_nan=False,
        description="strength of preference; negative for skip or dislike, 0 for an impression",
    )
    weight_by_value: tuple[tuple[float, float], ...] = Field(
        (), description="[[from value, weight], …] ascending; overrides weight for events with a value"
    )
    seen: bool = Field(True, description="counts as an interaction with the item; false for impressions")


class EventsConfig(Section):
    types: dict[str, EventType] = Field(
        default_factory=lambda: {
            "impression": EventType(weight=0.0, seen=False),
            "click": EventType(weight=1.0),
            "like": EventType(weight=2.0),
            "dislike": EventType(weight=-2.0),
        },
        description="all event types of the data; any other type is an error that the doctor reports",
    )
    store: str = Field(
        "sqlite",
        description="where events, slates and catalog changes are stored: `sqlite`, one machine, or "
        "`postgresql://USER@HOST/DATABASE`, any number of machines (`pip install 'handsell[postgres]'`); "
        "$HANDSELL_EVENT_STORE overrides it",
    )
    session_gap_minutes: float = Field(30.0, gt=0, description="time without events that ends a session")

    @property
    def names(self) -> tuple[str, ...]:
        """Event type names; the code of an event type is its index."""
        return tuple(self.types)

    @property
    def session_gap_us(self) -> int:
        return int(self.session_gap_minutes * MINUTE_US)


class SplitConfig(Section):
    """Windows: retrieval | ranker | validation | test, in that order."""

    kind: Literal["by_time", "leave_last_k"] = Field(
        "by_time",
        description="by_time cuts at fixed times; leave_last_k cuts each user's events, for sparse or unordered data",
    )
    ranker_days: float = Field(6.0, gt=0, description="by_time: length of the ranker window")
    validation_days: float = Field(
        3.0, gt=0, description="by_time: length of the validation window, for early stopping and calibration"
    )
    test_days: float = Field(3.0, gt=0, description="by_time: length of the test window, for the report")
    ranker_k: int = Field(5, ge=1, description="leave_last_k: events per user in the ranker window")
    validation_k: int = Field(3, ge=1, description="leave_last_k: events per user in the validation window")
    test_k: int = Field(3, ge=1, description="leave_last_k: events per user in the test window, the last ones")
    max_requests: int = Field(3_000, ge=1, description="requests per window; more are sampled by hash of user and time")
