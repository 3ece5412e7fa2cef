"""How long a deployment keeps its data: `[retention]`."""

from __future__ import annotations

from pydantic import Field

from handsell.core.section import Section


class RetentionConfig(Section):
    """What `handsell clean`, and each `handsell train`, removes. Nothing that is still needed is removed earlier."""

    events_days: float = Field(
        1.0,
        ge=0,
        description="days for which the event store keeps events that are compacted and in the features; the newest "
        "two million also stay until a served bundle includes them. Training reads the compacted files, not the store",
    )
    keys_days: float = Field(
        30.0,
        ge=0,
        description="days after compaction for which the event store knows an event that is sent again; later it is "
        "stored once more, and training counts it once all the same",
    )
    impressions_days: float = Field(
        7.0,
        ge=0,
        description="days for which the event store keeps compacted impressions; longer where `shown_days`, an "
        "`item_cap` or a `cap` of a surface counts them for longer",
    )
    compacted_days: float | None = Field(
        None,
        gt=0,
        description="days of compacted events and impressions that are kept for training, whole days; none: all",
    )
    audit_days: float = Field(365.0, gt=0, description="days for which the audit log (`handsell audit`) is kept")
    bundles: int = Field(3, ge=1, description="newest bundles that are kept, besides the live one")
    rollbacks: int = Field(1, ge=0, description="earlier live bundles that are kept for `handsell bundles rollback`")
    runs: int = Field(1, ge=0, description="newest folders of training runs that are kept")
    logs_days: float = Field(7.0, gt=0, description="days for which log files are kept after their last line")
    logs_mib: int = Field(
        500, ge=1, description="size of all log files; beyond it, the oldest that no process writes are removed"
    )
