"""Settings of the HTTP service: `[serving]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from handsell.core.section import Section


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
