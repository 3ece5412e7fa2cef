"""`feature_repo/` and the stock feast command: which deployment it works on, and what it registers."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from feast_rows import write_config
from handsell.config import load_config
from handsell.core.errors import FeatureError
from handsell.features.repository import (
    build_feast_settings,
    explain_mismatch,
    find_feature_repo,
    load_selected_config,
    prepare_feast_environment,
    write_feast_file,
)
from handsell.features.views import SERVICES, build_views, list_cross_columns, list_service_columns

ROOT = Path(__file__).parents[2]
VARIABLES = ("HANDSELL_CONFIG", "HANDSELL_HOME", "FEAST_FS_YAML_FILE_PATH")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of what the stock command reads, so that its state stays out of this checkout."""
    shutil.copytree(ROOT / "feature_repo", tmp_path / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "deployments" / "configs").mkdir(parents=True)
    shutil.copy(ROOT / "deployments" / "configs" / "world.toml", tmp_path / "deployments" / "configs")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def feast(arguments: list[str], **environment: str) -> subprocess.Popen:
    command = [str(Path(sys.executable).with_name("feast")), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd="/", env=os.environ | environment, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
def test_the_stock_command_works_from_anywhere_and_never_on_the_wrong_registry(checkout):
    shop, repo = write_config(checkout, "shop"), str(checkout / "feature_repo")
    alone = feast(["-c", repo, "apply"], HANDSELL_CONFIG=str(shop.source))
    world = feast(["-c", repo, "apply"])
    out, problem = alone.communicate(timeout=120)
    assert alone.returncode == 1 and "Traceback" not in problem
    assert "project: expected 'shop', got 'world'" in problem
    assert f'export FEAST_FS_YAML_FILE_PATH="{shop.state}/feast/feature_store.yaml"' in problem
    out, problem = world.communicate(timeout=120)
    assert world.returncode == 0, problem
    assert "Applying changes for project world" in out
    folder = checkout / ".handsell" / "world" / "feast"
    assert (folder / "registry.db").is_file() and (folder / "online.db").is_file()
    assert not (shop.state / "feast" / "registry.db").exists()


def test_the_repository_file_is_the_world(checkout):
    repo = checkout / "feature_repo"
    config = load_selected_config(repo)
    assert config.name == "world"
    assert explain_mismatch(config, repo, repo / "feature_store.yaml") is None


@pytest.mark.parametrize("given", ["shop.toml", "./shop.toml"])
def test_a_relative_config_is_found_from_the_directory_of_the_caller(checkout, monkeypatch, given):
    write_config(checkout, "shop")
    monkeypatch.setenv("HANDSELL_CONFIG", given)
    monkeypatch.setenv("PWD", str(checkout))
    monkeypatch.chdir(checkout / "feature_repo")  # as feast does
    assert load_selected_config(checkout / "feature_repo").name == "shop"


def test_another_home_disagrees_with_the_repository_file(checkout, monkeypatch):
    monkeypatch.setenv("HANDSELL_HOME", str(checkout / "elsewhere"))
    repo = checkout / "feature_repo"
    problem = explain_mismatch(load_selected_config(repo), repo, repo / "feature_store.yaml")
    assert problem is not None and "registry: expected" in problem and "project" not in problem.split("Export")[0]


def test_the_online_store_follows_the_config(tmp_path):
    config = write_config(tmp_path, "shop")
    redis = config.model_copy(update={"features": config.features.model_copy(update={"online_store": "cache:6379"})})
    assert build_feast_settings(config)["online_store"]["path"] == str(config.state / "feast" / "online.db")
    assert build_feast_settings(redis)["online_store"] == {
        "type": "redis",
        "connection_string": "cache:6379",
        "skip_dedup": True,
    }
    odd = config.model_copy(update={"features": config.features.model_copy(update={"online_store": "postgres"})})
    with pytest.raises(FeatureError, match=r"'postgres': expected sqlite, or a redis address host:port"):
        build_feast_settings(odd)


def test_the_environment_overrides_the_online_store_and_keeps_its_password(tmp_path, monkeypatch):
    config = write_config(tmp_path, "shop")
    monkeypatch.setenv("HANDSELL_ONLINE_STORE", "cache:6379,password=hush")
    assert build_feast_settings(config)["online_store"]["connection_string"] == "cache:6379,password=hush"
    written = write_feast_file(config)
    assert "hush" not in written.read_text()
    assert explain_mismatch(config, ROOT / "feature_repo", written) is None
    monkeypatch.setenv("HANDSELL_ONLINE_STORE", "postgres")
    with pytest.raises(FeatureError, match=r"\$HANDSELL_ONLINE_STORE is set to something else: expected sqlite"):
        build_feast_settings(config)


def test_the_definitions_are_found_from_a_config_outside_the_checkout(tmp_path):
    assert find_feature_repo(write_config(tmp_path, "shop")) == ROOT / "feature_repo"
    assert find_feature_repo(load_config(ROOT / "deployments" / "configs" / "world.toml")) == ROOT / "feature_repo"


def test_definitions_offer_what_views_declare(checkout, monkeypatch):
    config = write_config(checkout, "shop")
    monkeypatch.setenv("HANDSELL_CONFIG", str(config.source))
    monkeypatch.syspath_prepend(str(checkout / "feature_repo"))
    names = [path.stem for path in (checkout / "feature_repo").glob("*.py")]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)  # tests have a module `deployment` of their own
    try:
        modules = {name: importlib.import_module(name) for name in names}
        for name, view in build_views(config).items():
            made = getattr(modules["views"], name)
            assert {c.name for c in made.entity_columns} == set(view.keys)
            assert tuple(f.name for f in made.features) == view.names
            assert made.batch_source.path == str(config.state / "features" / name)
        assert tuple(f.name for f in modules["crosses"].request_crosses.features) == tuple(
            n for n, _ in list_cross_columns()
        )
        for name in SERVICES:
            projections = getattr(modules["services"], name).feature_view_projections
            assert tuple(f.name for p in projections for f in p.features) == list_service_columns(config, name)
    finally:
        for name in names:
            sys.modules.pop(name, None)


def test_the_written_file_is_what_feast_reads(tmp_path):
    config = write_config(tmp_path, "shop")
    path = Path(prepare_feast_environment(config)["FEAST_FS_YAML_FILE_PATH"])
    assert yaml.safe_load(path.read_text()) == build_feast_settings(config)
    assert [p.name for p in path.parent.iterdir()] == ["feature_store.yaml"]
