"""Settings of the web console: `[console]`."""

from __future__ import annotations

from pydantic import Field

from handsell.core.section import Section


class ConsoleConfig(Section):
    enabled: bool = Field(True, description="deploy the web console at `/console`, beside the HTTP API")
    service_url: str | None = Field(
        None,
        description="address at which the console asks the HTTP API; by default that of `[serving]` on this machine",
    )
    session_hours: float = Field(12.0, gt=0, description="hours after which a signed-in person signs in again")
