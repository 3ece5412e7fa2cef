"""Where the data is, what its events mean, and how it is cut into windows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from handsell.core.section import Section


class TableSource(Section):
    """One of the user's own tables: a Parquet or CSV file, or a folder of them."""

    path: str = Field(description="file or folder, relative to the TOML file (or to DATA when given)")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="canonical column = column in the table; unnamed ones map to themselves",
    )
    list_separator: str = Field("|", description="splits creators and tags that are stored as one string")


class TablesConfig(Section):
    """The user's own data: the route real deployments take."""

    events: TableSource = Field(description="who did what with which item, and when")
    items: TableSource | None = Field(None, description="what there is; without it new items cannot be recommended")
    users: TableSource | None = Field(None, description="what is known of users beside their events")


class WorldConfig(Section):
    """The synthetic music service; the same seed and sizes give the same bytes."""

    seed: int = Field(7, ge=0, description="draws everything; another seed is another world")
    users: int = Field(3_000, ge=2, description="listeners")
    items: int = Field(8_000, ge=2, description="tracks")
    artists: int = Field(800, ge=1, description="creators that share the tracks, unevenly")
    tags: int = Field(40, ge=2, description="genres and moods")
    days: int = Field(45, ge=3, description="length of the log, up to `end`")
    sessions_per_user_week: float = Field(3.0, gt=0, description="mean over listeners; some come far more often")
    slate: int = Field(10, ge=1, description="items that the logging policy shows in a session")
    organic_share: float = Field(0.6, ge=0, le=1, description="share of listens that come from search and library")
    end: str = Field("2026-06-30T00:00:00Z", description="the moment at which the log ends")
    users_per_partition: int = Field(1_000, ge=1, description="listeners written by one task; bounds its memory")


class DataConfig(Section):
    format: Literal["auto", "movielens", "atomic", "sequences", "tables", "world"] = Field(
        "auto", description="layout of the source; auto looks at the files in the folder"
    )
    path: str | None = Field(None, description="folder of the source, relative to the TOML file; DATA overrides it")
    download: Literal["ml-latest-small", "ml-100k", "ml-1m", "ml-25m", "ml-32m"] | None = Field(
        None, description="MovieLens data set to fetch when path is not given"
    )
    world: WorldConfig = WorldConfig()
    tables: TablesConfig | None = Field(None, description="needed by format = tables")


class EventType(Section):
    """What one kind of event says about a user's taste."""

    weight: float = Field(
        1.0,
        allow_inf_nan=False,
        description="strength of preference; negative for skip or dislike, 0 for a mere impression",
    )
    weight_by_value: tuple[tuple[float, float], ...] = Field(
        (), description="[[from value, weight], …] ascending; overrides weight for events that carry a value"
    )
    seen: bool = Field(True, description="counts as having seen the item (impressions do not)")


class EventsConfig(Section):
    types: dict[str, EventType] = Field(
        default_factory=lambda: {
            "impression": EventType(weight=0.0, seen=False),
            "click": EventType(weight=1.0),
            "like": EventType(weight=2.0),
            "dislike": EventType(weight=-2.0),
        },
        description="every event type that may occur; an event of another type is a data error named by the doctor",
    )
    session_gap_minutes: float = Field(30.0, gt=0, description="silence that ends a session")

    @property
    def names(self) -> tuple[str, ...]:
        """Event type names; an event's type code is its index here."""
        return tuple(self.types)


class SplitConfig(Section):
    """Windows: retrieval | ranker | validation | test, in that order."""

    kind: Literal["by_time", "leave_last_k"] = Field(
        "by_time",
        description="by_time cuts at moments; leave_last_k cuts each user's events, for thin or unordered data",
    )
    ranker_days: float = Field(6.0, gt=0, description="by_time: length of the ranker window")
    validation_days: float = Field(3.0, gt=0, description="by_time: where trees stop and scores are calibrated")
    test_days: float = Field(3.0, gt=0, description="by_time: what the report is about")
    ranker_k: int = Field(5, ge=1, description="leave_last_k: events per user in the ranker window")
    validation_k: int = Field(3, ge=1, description="leave_last_k: the same for validation")
    test_k: int = Field(3, ge=1, description="leave_last_k: the same for the test; each user's last")
    max_requests: int = Field(3_000, ge=1, description="requests kept per window, sampled by hash of user and time")
