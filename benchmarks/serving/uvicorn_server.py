"""The same calls behind one uvicorn process: the gateway with its stages inside, and no Ray."""

from __future__ import annotations

import sys

import uvicorn

from handsell.core.paths import Layout
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.features.store import open_store
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.graph.loaded_bundle import load_bundle
from handsell.serving.graph.loading import LIVE, open_bundle
from handsell.serving.graph.service import Service
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.serving.http.api import build_api
from handsell.serving.telemetry.observability import Metrics


def main(path: str) -> None:
    opened, metrics = open_bundle(path, LIVE), Metrics()
    config = opened.config
    log = SqliteWriter(Layout(config.state).event_log)
    bundle = load_bundle(opened, load_local_stages(opened), open_store(config), metrics)
    app = build_api(Service(bundle, LocalSink(log), metrics))
    uvicorn.run(app, host="127.0.0.1", port=config.serving.port, log_level="error", access_log=False)


if __name__ == "__main__":
    main(sys.argv[1])
