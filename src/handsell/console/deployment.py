"""The console as a Serve application of its own, `import_path: handsell.console.deployment:build` in Serve files.

It has one replica, since sessions are in its memory, and asks the gateways by HTTP: its work takes none of their time.
"""

# no `from __future__ import annotations`: Serve reads the argument's class from the signature of `build`
import os
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application
from starlette.applications import Starlette

from handsell.access.audit_entry import AuditEntry
from handsell.access.exposure import find_exposure
from handsell.config import Config, load_config
from handsell.core.errors import ConfigError
from handsell.features.storage.absent_modules import leave_out
from handsell.jobs.store_writer import open_store_writer
from handsell.serving.http.app import bind, find_host, locate_config

NICENESS = 5  # requests for recommendations come first where processors are short
LOCK_WAIT_S = 5.0
OPTIONS: dict[str, Any] = {
    "max_ongoing_requests": 64, "max_queued_requests": 64, "ray_actor_options": {"num_cpus": 0},
}  # fmt: skip


class ConsoleArgs(BaseModel):
    """The `args` of the application in a Serve file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: str = Field(description="the deployment's TOML file, an absolute path on the cluster's machines")


def build(args: ConsoleArgs) -> Application:
    """Bind the console of a deployment; raises ConfigError before anything is started."""
    config = load_config(locate_config(args.config))
    if exposed := find_exposure(config.access, find_host() or config.serving.host):
        raise ConfigError(exposed)
    return bind(Console, str(config.source))


@serve.deployment(name="Console", num_replicas=1, **OPTIONS)
@serve.ingress()
class Console:
    """Serves the pages."""

    def __init__(self, config: str):
        from handsell.serving.telemetry.process_telemetry import start_telemetry

        os.nice(NICENESS)
        self._config = load_config(config)
        start_telemetry(self._config, "Console")

    def __serve_build_asgi_app__(self) -> Starlette:
        return import_pages()(self._config, lambda entry: append_audit(self._config, entry))


def import_pages() -> Callable[..., Starlette]:
    """Import the pages without pandas, which Arrow imports with its data sets; return what builds the console."""
    with leave_out("pandas"):
        from handsell.console.app import build_console
    return build_console


def append_audit(config: Config, entry: AuditEntry) -> None:
    """Store an entry of the audit log, through the one writer of a SQLite store."""
    with open_store_writer(config, LOCK_WAIT_S) as write:
        write("append_audit", [entry])
