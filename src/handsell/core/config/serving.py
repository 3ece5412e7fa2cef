"""Surfaces, the HTTP service, jobs and the promotion gate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from handsell.core.config.base import Section

LONGEST_FILTER = 1_000  # characters of a filter expression


class SlateCap(Section):
    """How many slates of this surface a user gets at most; kept by batch jobs (`handsell batch`)."""

    slates: int = Field(1, ge=1, description="slates of this surface")
    days: float = Field(1.0, gt=0, description="in as many days")


class ItemCap(Section):
    """How often a user is shown one item at most, counting every surface."""

    times: int = Field(3, ge=1, description="impressions of an item")
    days: float = Field(7.0, gt=0, description="in as many days")


class Surface(Section):
    """A place where slates are shown."""

    count: int = Field(10, ge=1, le=30, description="slate length when the caller does not say")
    repeat: Literal["exclude", "allow", "after_days"] = Field("exclude", description="may seen items come back?")
    after_days: float = Field(7.0, ge=0, description="with repeat = after_days: quiet days before an item may return")
    category_window: int | None = Field(None, ge=0, le=30, description="instead of reranking.category_window")
    category_most: int | None = Field(None, ge=1, le=30, description="instead of reranking.category_most")
    filter: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_FILTER,
        description="expression that every item shown here passes, such as `not item.explicit`: docs/filters.md",
    )
    only: tuple[str, ...] = Field(
        (), description="sources of which one must have found an item for it to come here, such as bought_together"
    )
    ranked: bool = Field(True, description="false keeps the order of the sources: the ranker was trained for home")
    substitutes: Literal["keep", "same_creator", "same_tag"] = Field(
        "keep", description="what in place of the request's basket, rather than beside it, does not come here"
    )
    seen_on: tuple[str, ...] = Field(
        (), description="surfaces, this one too where it is named, whose shown items do not come here for `shown_days`"
    )
    shown_days: float = Field(7.0, gt=0, description="how long an item shown on one of `seen_on` stays away")
    item_cap: ItemCap | None = Field(None, description="how often one item is shown to a user; none: no limit")
    cap: SlateCap | None = Field(None, description="how many slates of a batch surface a user gets; none: no limit")

    @property
    def remembers(self) -> bool:
        """What a user was shown matters here."""
        return bool(self.seen_on) or self.item_cap is not None


class ServingConfig(Section):
    host: str = Field("127.0.0.1", description="address listened on; the default is reached from this machine only")
    port: int = Field(8000, ge=1, le=65_535, description="of the HTTP API")
    ingress: Literal["plain", "haproxy"] = Field(
        "plain",
        description="of a local cluster: plain: Serve's own proxy, on `host` alone; haproxy: faster, but its "
        "statistics and metrics (8404, 9101) listen on every interface, without a token: only behind a firewall",
    )
    clock: Literal["wall", "data"] = Field(
        "wall",
        description="wall: requests happen now; data: the service lives at the end of a historic log (whole days are "
        "subtracted from now), so that ages and windows mean what they meant in training",
    )
    max_count: int = Field(30, ge=1, le=30, description="longest slate that a caller may ask for")
    max_feed: int = Field(300, ge=1, le=1_500, description="items in the pages of one feed; after them it ends")
    max_body_bytes: int = Field(1_000_000, ge=1_000, description="larger request bodies are answered with 413")
    max_events: int = Field(1_000, ge=1, description="events in one POST")
    deadline_ms: int = Field(2_000, ge=1, description="after this a stage is left out of the answer")
    micro_batch: int = Field(16, ge=1, description="requests that may share one trip through the stages")
    in_flight: int = Field(3, ge=1, description="micro-batches under way at once")
    follow_s: float = Field(1.0, gt=0, description="how often replicas look which bundle is live")
    feature_log_share: float = Field(0.01, ge=0, le=1, description="requests whose feature vectors are logged for skew")


class JobsConfig(Section):
    """What runs on the Ray cluster."""

    dashboard_port: int = Field(8265, ge=1, le=65_535, description="of Ray's dashboard, which takes submitted jobs")
    gcs_port: int = Field(6379, ge=1, le=65_535, description="on which nodes of the cluster find its head")
    num_cpus: int = Field(4, ge=1, description="logical CPUs that the local cluster declares")
    object_store_mib: int = Field(512, ge=80, description="shared memory of the local cluster's object store")
    partitions: int = Field(4, ge=1, description="partitions of users in Ray Data jobs")
    wait_for_resources_s: float = Field(120.0, gt=0, description="after this a job that cannot be placed says so")


class GateConfig(Section):
    """When a new bundle may go live."""

    tolerance: float = Field(
        0.02,
        ge=0,
        description="relative NDCG@10 that may be lost at the lower 95 % bound against the live bundle",
    )
    max_coverage_loss: float = Field(0.2, ge=0, le=1, description="relative catalogue coverage that may be lost")
    max_creator_coverage_loss: float = Field(0.2, ge=0, le=1, description="the same for creators in anybody's list")
    max_diversity_loss: float = Field(0.1, ge=0, le=1, description="relative diversity of a list that may be lost")
    max_calibration_rise: float = Field(
        0.25, ge=0, description="by how much, relative, lists may move away from users' own mix of tags"
    )
    max_absence_loss: float = Field(
        0.1,
        ge=0,
        le=1,
        description="relative NDCG@10 that slates may lose when asked 30 days after a user's last event, not at once",
    )
    min_requests: int = Field(50, ge=1, description="fewer shared requests: the live recipe is retrained to compare")
