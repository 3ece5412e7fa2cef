"""Files of the feature store: damaged ones, and paths that Feast or DuckDB would read as patterns or variables."""

import os
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from handsell.config import load_config
from handsell.core.errors import FeatureError
from handsell.core.paths import Layout
from handsell.features.repository import build_feast_settings, prepare_feast_environment
from handsell.features.store import open_store
from handsell.features.views import to_duckdb_path


@pytest.mark.parametrize("name", ["plain", "a [1] b", "st*r?", "it's", "[", "$HOME"])
def test_duckdb_reads_the_files_of_any_folder(tmp_path, name):
    folder = tmp_path / name / "view"
    folder.mkdir(parents=True)
    for part in ("0", "1"):
        pq.write_table(pa.table({"user_id": [part]}), folder / f"part-{part}.parquet")
    assert duckdb.read_parquet(to_duckdb_path(folder)).fetchall() == [("0",), ("1",)]


@pytest.mark.parametrize("name", ["$HOME", "${HOME}", "$", "my shop"])
def test_feast_reads_paths_with_dollars_as_they_are(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / name))
    path = tmp_path / "shop.toml"
    path.write_text('name = "shop"\n[features]\nonline_store = "localhost:6379,password=$HOME"\n')
    config = load_config(path)
    given = prepare_feast_environment(config)
    monkeypatch.setattr(os, "environ", {**os.environ, **given})
    with Path(given["FEAST_FS_YAML_FILE_PATH"]).open(encoding="utf-8") as file:
        assert yaml.safe_load(os.path.expandvars(file.read())) == build_feast_settings(config)


@pytest.mark.parametrize("left", [b"\xff\xff", b"not a registry or a database"])
def test_damaged_files_of_the_store_are_one_sentence_with_the_remedy(configured, left):
    config = configured('name = "shop"')
    folder = Layout(config.state).feast
    folder.mkdir(parents=True)
    for name in ("registry.db", "online.db", "feature_store.yaml"):
        (folder / name).write_bytes(left)
    store = open_store(config)
    with pytest.raises(FeatureError, match=r"registry\.db is damaged: remove it"):
        store.apply()
    with pytest.raises(FeatureError, match="damaged"):
        store.refresh()
    with pytest.raises(FeatureError, match=r"online\.db is damaged .*: remove it"):
        store.materialize()
