"""`handsell init`: what it writes, and what it refuses."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from handsell.config import find_shipped, load_config
from handsell.core.errors import ConfigError
from handsell.features.repository import explain_mismatch, import_definitions, list_definitions, load_selected_config
from handsell.local.project.creation import HEADERS, create_project
from kuberay_manifests import build_objects, find_object

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "deployments" / "kuberay" / "overlays" / "local"


@pytest.fixture
def shop(tmp_path):
    create_project("shop", tmp_path)
    return tmp_path


@pytest.mark.parametrize("template", HEADERS)
def test_every_template_is_a_config_here_and_on_kubernetes(tmp_path, template):
    create_project("shop", tmp_path, template)
    here = load_config(tmp_path / "shop.toml")
    there = load_config(tmp_path / "deployments" / "kuberay" / "overlays" / "shop" / "handsell.toml")
    assert here.name == there.name == "shop" and here.state == tmp_path / ".handsell" / "shop"
    assert there.access.keys == "required" and here.access.keys != "required"
    shipped = load_config(ROOT / "deployments" / "configs" / f"{template}.toml")
    assert {**here.model_dump(), "name": template} == shipped.model_dump()
    assert there.surfaces == here.surfaces and there.events == here.events and there.retrieval == here.retrieval
    assert "make up" not in (tmp_path / "shop.toml").read_text()
    if template == "own_data":
        assert str(there.data_path) == "/handsell/source"


def test_stock_feast_commands_are_about_the_project(shop, monkeypatch):
    monkeypatch.delenv("HANDSELL_CONFIG", raising=False)
    repo = shop / "feature_repo"
    config = load_selected_config(repo)
    assert config.source == shop / "shop.toml"
    assert explain_mismatch(config, repo, repo / "feature_store.yaml") is None
    assert {path.name for path in list_definitions(config)} >= {"handsell_views.py", "views.py", "services.py"}


def test_handsells_definitions_leave_no_module_behind(monkeypatch):
    mine = object()
    monkeypatch.setitem(sys.modules, "views", mine)
    path = list(sys.path)
    defined = import_definitions()
    assert {"user", "item", "creator", "tag", "ranking_v1", "user_profile", "request_crosses"} <= defined.keys()
    assert sys.modules["views"] is mine and "crosses" not in sys.modules and sys.path == path
    assert not {"config", "layout", "pa"} & defined.keys()


def test_the_serve_files_are_used_and_name_the_config(shop):
    config = load_config(shop / "shop.toml")
    for topology in ("graph", "fused"):
        path = shop / "deployments" / "serve" / f"{topology}.yaml"
        assert find_shipped(config.source, f"deployments/serve/{topology}.yaml") == path
        applications = yaml.safe_load(path.read_text())["applications"]
        assert [one["args"]["config"] for one in applications] == ["shop.toml"] * 2
        assert "checkout" not in path.read_text()


def test_the_overlay_is_the_one_for_one_machine_with_the_projects_config(shop):
    overlays = shop / "deployments" / "kuberay" / "overlays"
    built, local = build_objects(overlays / "shop"), build_objects(LOCAL)
    service, other = (find_object(objects, "RayService", "handsell") for objects in (built, local))
    waits, waited = (
        each["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["initContainers"][0]
        for each in (service, other)
    )
    assert "/handsell/shop/bundles/live.json" in waits["command"][-1]
    assert {**waits, "command": ""} == {**waited, "command": ""}
    assert service["spec"]["serveConfigV2"] == other["spec"]["serveConfigV2"]
    assert [each["kind"] for each in built] == [each["kind"] for each in local]
    texts = [each["data"]["handsell.toml"] for each in built if "handsell.toml" in each.get("data", {})]
    assert texts == [(overlays / "shop" / "handsell.toml").read_text()]


def test_the_readme_has_ten_lines_and_commands_that_exist(shop):
    lines = (shop / "README.md").read_text().splitlines()
    assert len(lines) <= 11
    commands = {line.split()[1] for line in lines if line.startswith("    handsell ")}
    assert commands == {"doctor", "up", "recommend", "down"}
    for path in re.findall(r"deployments/[\w/]+", "\n".join(lines)):
        assert (shop / path).is_dir(), path


def test_an_existing_file_is_kept_and_nothing_is_written(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"expected none of the project's files in .*, found README.md: .*--folder"):
        create_project("shop", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"] and (
        tmp_path / "README.md"
    ).read_text() == "mine"
    create_project("shop", tmp_path / "new")
    with pytest.raises(
        ConfigError, match=r"found shop.toml, README.md, feature_repo/feature_store.yaml and \d\d other"
    ):
        create_project("shop", tmp_path / "new")


@pytest.mark.parametrize("name", ["My-Shop", "", "1shop", "a/b", "../shop", "shop\n", "x" * 32])
def test_a_name_that_cannot_be_one_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="expected up to 31 lower-case letters, digits and underscores"):
        create_project(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_name_of_an_overlay_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is an overlay of this name"):
        create_project("prod", tmp_path)


def test_the_command_names_the_next_one(tmp_path):
    command = [sys.executable, "-m", "handsell", "init", "films", "--template", "own_data", "--folder", "somewhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "next: handsell doctor somewhere/films.toml"
    assert (tmp_path / "somewhere" / "films.toml").is_file()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 1 and again.stderr.startswith("error: ") and "Traceback" not in again.stderr
