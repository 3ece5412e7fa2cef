"""Settings of logs and traces: `[logging]`, `[tracing]`."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from handsell.core.section import Section

ENDPOINT = re.compile(r"https?://[^\s@?#]+")


class LoggingConfig(Section):
    ids: Literal["hashed", "plain"] = Field(
        "hashed",
        description="user and item ids in log lines. hashed: by a key of this deployment ($HANDSELL_LOG_KEY, or a file "
        "in the state folder), so that equal ids can be joined; `handsell hash` prints the hash of an id",
    )
    requests: bool = Field(False, description="write one line for each request: route, status, milliseconds, key")


class TracingConfig(Section):
    endpoint: str = Field(
        "",
        description="base address of the receiver of OpenTelemetry spans (OTLP over HTTP), such as "
        "http://collector:4318 (`pip install 'handsell[tracing]'`); empty: no spans. "
        "$OTEL_EXPORTER_OTLP_ENDPOINT overrides it, and the other OTEL_* "
        "variables apply",
    )

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str) -> str:
        if endpoint and not ENDPOINT.fullmatch(endpoint):
            raise ValueError("expected an address such as http://collector:4318, without user and password")
        return endpoint
