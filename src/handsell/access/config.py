"""Settings of access to the HTTP API: `[access]`."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from handsell.core.section import Section

ORIGIN = re.compile(r"https?://[^/\s*]+")


class AccessConfig(Section):
    keys: Literal["off", "required"] = Field(
        "off",
        description="required: each request needs an API key of `handsell keys create`. off: anyone who reaches the "
        "port may call, so a service that listens beyond loopback does not start unless `open` says so",
    )
    open: Literal["", "anyone may call"] = Field(
        "", description="`anyone may call` starts a service without keys on an address beyond loopback"
    )
    cors_origins: tuple[str, ...] = Field(
        (),
        description="web pages of these origins, such as https://shop.example, may call from a browser; requests from "
        "other origins are answered with 403",
    )
    rate_per_s: float | None = Field(
        None,
        gt=0,
        description="requests per second of one key on one gateway, with bursts of two seconds; a key may have its "
        "own. Of a widget's key it holds for each user. Without a value there is no limit",
    )
    quota_per_day: int | None = Field(
        None,
        ge=1,
        description="requests of one key in a UTC day on all gateways together; a key may have its own. Without a "
        "value there is no limit",
    )
    widget_token_s: int = Field(
        3_600, ge=1, description="longest remaining life of a widget's token; one that expires later is refused"
    )

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"expected origins such as https://shop.example, without a path, got {origin!r}")
        return origins
