"""A config in a mounted ConfigMap: files are links through `..data`, whose target is replaced with each change."""

from pathlib import Path

import pytest

from handsell.config import load_config
from handsell.config.locations import expand_path, make_absolute
from handsell.serving.http.app import locate_config

TOML = 'name = "shop"\n[data]\npath = "source"\n[reranking]\nrules = "rules.toml"\n'


class ConfigMapFolder:
    """A folder as kubelet writes it: `..data` points to a folder with a time in its name, and files point into it."""

    def __init__(self, folder: Path):
        self.folder, self.version = folder, 0
        folder.mkdir()

    def write(self, **files: str) -> None:
        """Replace all files at once, as kubelet does, and remove the previous ones."""
        self.version += 1
        target = self.folder / f"..2026_11_29_00_33_47.{self.version}"
        target.mkdir()
        for name, text in files.items():
            (target / f"{name}.toml").write_text(text)
        before = (self.folder / "..data").readlink() if self.version > 1 else None
        (self.folder / "..data_tmp").symlink_to(target.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        for name in files:
            link = self.folder / f"{name}.toml"
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}.toml")
        if before is not None:
            for path in (self.folder / before).iterdir():
                path.unlink()
            (self.folder / before).rmdir()


@pytest.fixture
def mounted(tmp_path) -> ConfigMapFolder:
    folder = ConfigMapFolder(tmp_path / "handsell")
    folder.write(handsell=TOML, rules="")
    return folder


def test_no_path_of_a_mounted_config_names_what_only_this_pod_has(mounted):
    path = mounted.folder / "handsell.toml"
    config = load_config(locate_config(str(path)))
    paths = {config.source, config.rules_path, config.data_path, config.state}
    assert config.source == path and config.rules_path == mounted.folder / "rules.toml"
    assert not [one for one in paths if ".." in str(one)]


def test_paths_stay_valid_when_the_config_map_changes(mounted):
    config = load_config(mounted.folder / "handsell.toml")
    mounted.write(handsell=TOML.replace("shop", "market"), rules="# changed")
    assert load_config(config.source).name == "market"
    assert config.rules_path.read_text() == "# changed"


def test_a_relative_path_does_not_depend_on_the_working_directory_of_another_process(mounted, monkeypatch, tmp_path):
    monkeypatch.chdir(mounted.folder)
    config = load_config("handsell.toml")
    monkeypatch.chdir(tmp_path)
    assert load_config(str(config.source)).source == mounted.folder / "handsell.toml"


def test_state_below_a_link_keeps_the_name_that_other_machines_know(tmp_path, monkeypatch):
    (tmp_path / "disk-of-this-machine").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "disk-of-this-machine")
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HANDSELL_DATA", str(tmp_path / "state" / "source"))
    (tmp_path / "shop.toml").write_text('name = "shop"')
    config = load_config(tmp_path / "shop.toml")
    assert config.state == tmp_path / "state" / "shop" and config.data_path == tmp_path / "state" / "source"


def test_two_dots_after_a_link_mean_the_parent_of_its_target(tmp_path):
    (tmp_path / "far" / "target").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "target")
    (tmp_path / "far" / "last").symlink_to(tmp_path)
    found = make_absolute(tmp_path / "link" / ".." / "last")
    assert found == tmp_path / "far" / "last"


def test_a_path_without_links_is_the_same_as_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ("a/../b", "./a//b", "../x", "~/x", ".", ".."):
        assert expand_path(given, "CONFIG") == Path(given).expanduser().resolve(), given


def test_the_path_in_the_config_may_start_with_two_dots(mounted):
    mounted.write(handsell=TOML.replace('"source"', '"../source"'), rules="")
    assert load_config(mounted.folder / "handsell.toml").data_path == mounted.folder.parent / "source"
