"""Without the package of an extra, one sentence names the setting and what to install."""

import importlib.util
import sys

import pytest

from feast_rows import write_config
from handsell.core.errors import ConfigError, FeatureError
from handsell.features.repository import build_feast_settings
from handsell.serving.telemetry.config import TracingConfig
from handsell.serving.telemetry.tracing import start_tracing
from handsell.storage import objects

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


def test_object_storage(monkeypatch):
    monkeypatch.setattr(objects, "obstore", None)
    with pytest.raises(ConfigError, match=r"storage.uri or \$HANDSELL_STORAGE .*pip install 'handsell\[storage\]'"):
        objects.Objects("s3://bucket/handsell")


def test_redis(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "redis" else found(name))
    config = write_config(tmp_path, "shop")
    assert build_feast_settings(config)["online_store"]["type"].endswith("SqliteOnlineStore")
    monkeypatch.setenv("HANDSELL_ONLINE_STORE", "cache:6379,password=hush")
    with pytest.raises(FeatureError, match=r"\$HANDSELL_ONLINE_STORE .*pip install 'handsell\[redis\]'") as told:
        build_feast_settings(config)
    assert "hush" not in str(told.value)


def test_tracing(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, EXPORTER, None)
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    start_tracing(TracingConfig(), "Gateway")
    with pytest.raises(ConfigError, match=r"tracing.endpoint: .*pip install 'handsell\[tracing\]'"):
        start_tracing(TracingConfig(endpoint="http://collector:4318"), "Gateway")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    with caplog.at_level("WARNING", logger="handsell"):
        start_tracing(TracingConfig(), "Gateway")  # the variable may be meant for other programs
    assert "handsell[tracing]" in caplog.text
