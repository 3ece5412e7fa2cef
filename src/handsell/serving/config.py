"""Settings of the HTTP service: `[serving]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from handsell.core.section import Section


class ServingConfig(Section):
    host: str = Field("127.0.0.1", description="listening address; the default is reachable from this machine only")
    port: int = Field(8000, ge=1, le=65_535, description="port of the HTTP API")
    ingress: Literal["plain", "haproxy"] = Field(
        "haproxy",
        description="what takes the requests of a local cluster, on `host` and `port` only. haproxy: an HAProxy of its "
        "own, in front of gateways on loopback. plain: Serve's proxy, slower; also used where there is no HAProxy",
    )
    clock: Literal["wall", "data"] = Field(
        "wall",
        description="wall: requests happen now. data: requests happen on the day after a historic log (whole days are "
        "subtracted from now), so that ages and windows mean the same as in training",
    )
    max_count: int = Field(30, ge=1, le=30, description="longest slate that a caller may request")
    max_feed: int = Field(300, ge=1, le=1_500, description="items on all pages of one feed")
    max_body_bytes: int = Field(1_000_000, ge=1_000, description="larger request bodies are answered with 413")
    max_events: int = Field(1_000, ge=1, description="events in one POST")
    events_before_2000: bool = Field(
        False, description="accept events with times before 2000, which are more often a wrong unit than history"
    )
    gorse_api: bool = Field(
        False, description="also answer clients of Gorse, such as pygorse, below /api: see docs/migration.md"
    )
    ubi_types: dict[str, str] = Field(
        {},
        description='event types of action names in `POST /v1/ubi_events`, such as { add_to_cart = "cart" }; other '
        "names are types themselves",
    )
    deadline_ms: int = Field(2_000, ge=1, description="a stage that answers later is left out")
    micro_batch: int = Field(16, ge=1, description="most requests in one batch")
    in_flight: int = Field(3, ge=1, description="micro-batches processed at the same time")
    reuse_bytes: int = Field(
        16_000_000,
        ge=0,
        description="memory of a gateway, for each bundle, of answers that may be given again, see `reuse_seconds` of "
        "a surface; 0: every answer is computed",
    )
    stage_calls: Literal["sockets", "serve"] = Field(
        "sockets",
        description="how a gateway calls the stages of `topology: graph`. sockets: over sockets of their replicas, "
        "which Serve starts, lists and scales. serve: through Serve's handles",
    )
    bundle_check_s: float = Field(1.0, gt=0, description="seconds between checks for another live bundle")
    feature_log_share: float = Field(
        0.01, ge=0, le=1, description="share of requests whose feature vectors are logged for `handsell skew`"
    )
