"""Logs and traces of a process of the service."""

from __future__ import annotations

from handsell.config import Config
from handsell.core.logs.id_hashing import make_id_hash
from handsell.core.logs.log_lines import log_as_json
from handsell.core.paths import Layout
from handsell.serving.telemetry.tracing import start_tracing


def start_telemetry(config: Config, process: str) -> None:
    """Write log lines as JSON and export spans, as the config says; `process` is the name of the deployment."""
    log_as_json(process, make_id_hash(config.logging.ids, Layout(config.state).log_key))
    start_tracing(config.tracing, process)
