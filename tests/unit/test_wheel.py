"""The wheel works without a checkout: what it holds, and a project in an empty folder."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from feast.protos.feast.core.Registry_pb2 import Registry

from handsell.jobs.train.publication import find_git_revision
from installed_wheel import KERNELS, ROOT, install_wheel, list_sources

USED = ("deployments/configs", "deployments/kuberay", "deployments/serve")
MONITORING = ("deployments", "monitoring")
SMALL = 'format = "world"\nworld = { users = 150, items = 200, artists = 40, days = 30 }'
WHERE = """
from pathlib import Path
import handsell
from handsell.config import find_shipped, load_config
from handsell.features.repository import find_feature_repo
from handsell.serving.http.app import locate_config
config = load_config("alone.toml")
for path in (
    Path(handsell.__file__), find_feature_repo(config), find_shipped(config.source, "deployments/serve/graph.yaml"),
    locate_config("deployments/configs/world.toml"),
):
    print(path)
print(config.state)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return install_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def project(wheel, tmp_path):
    """A new project with a small world, in an empty folder."""
    made = wheel.run("handsell", "init", "shop", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "next: handsell up shop.toml" in made.stdout
    config = tmp_path / "shop.toml"
    config.write_text(config.read_text().replace('format = "world"', SMALL))
    return tmp_path


@pytest.mark.slow
def test_it_holds_the_package_and_the_files_that_it_uses(wheel):
    held = {Path(name) for name in zipfile.ZipFile(wheel.file).namelist()}
    sources = list_sources()
    used = [path for path in sources if path.parts[0] == "feature_repo" or "/".join(path.parts[:2]) in USED]
    used += [path for path in sources if path.parts[:2] == MONITORING and path.suffix in (".yaml", ".json")]
    expected = {path.relative_to("src") for path in sources if path.parts[0] == "src"}
    expected |= {Path("handsell", "shipped") / path for path in used}
    if shutil.which("gcc"):
        expected.add(KERNELS.relative_to("src"))
    assert {path for path in held if ".dist-info" not in path.parts[0]} == expected


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcc"), reason="no C compiler")
def test_its_kernels_are_built_from_its_own_files_not_copied_from_the_checkout(wheel, tmp_path):
    asked = "from handsell.core.kernels import compiled; print(compiled.__file__)"
    done = wheel.run("python", "-W", "error", "-c", asked, folder=tmp_path)
    assert done.stdout.strip() == str(wheel.site / KERNELS.relative_to("src")), done.stderr


@pytest.mark.slow
def test_everything_is_found_in_the_package(wheel, tmp_path):
    (tmp_path / "alone.toml").write_text('name = "alone"')
    done = wheel.run("python", "-c", WHERE, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    *found, state = map(Path, done.stdout.splitlines())
    assert [path for path in found if not path.is_relative_to(wheel.site)] == [] and len(found) == 4
    assert state == tmp_path / ".handsell" / "alone"


@pytest.mark.slow
def test_a_folder_beside_the_installation_is_not_taken_for_its_own(wheel, tmp_path):
    """With `--target`, the folder above the package is somebody's own, who may have a feature_repo, too."""
    (tmp_path / "alone.toml").write_text('name = "alone"')
    for beside in (wheel.site.parent, wheel.site):
        (beside / "feature_repo").mkdir(exist_ok=True)
        (beside / "feature_repo" / "feature_store.yaml").write_text("project: somebody\n")
    done = wheel.run("python", "-c", WHERE, folder=tmp_path)
    assert Path(done.stdout.splitlines()[1]) == wheel.site / "handsell" / "shipped" / "feature_repo"


@pytest.mark.slow
def test_a_project_is_checked_and_registered(wheel, project):
    checked = wheel.run("handsell", "doctor", "shop.toml", folder=project)
    assert checked.returncode == 0 and checked.stdout.endswith("ready to train\n"), checked.stdout + checked.stderr
    own = project / "feature_repo" / "views.py"  # a name that handsell's definitions have, too
    own.write_text("from feast import Entity\n\nbasket = Entity(name='basket', join_keys=['basket_id'])\n")
    applied = wheel.run("feast", "-c", "feature_repo", "apply", folder=project)
    assert applied.returncode == 0, applied.stderr
    assert "Applying changes for project shop" in applied.stdout
    registry = Registry.FromString((project / ".handsell" / "shop" / "feast" / "registry.db").read_bytes())
    assert {service.spec.name for service in registry.feature_services} == {"ranking_v1", "user_serving_v1"}
    assert {"basket", "creator"} < {entity.spec.name for entity in registry.entities}
    assert [view.spec.name for view in registry.on_demand_feature_views] == ["request_crosses"]
    again = wheel.run("handsell", "apply", "shop.toml", folder=project)
    assert again.returncode == 0, again.stderr
    said = applied.stdout + applied.stderr + again.stdout
    assert str(ROOT) not in said.replace(sys.prefix, "")  # whose libraries name themselves in warnings


def test_an_installed_package_has_no_revision_of_somebodys_repository(tmp_path):
    """An environment often lies in the repository of a project that uses it."""

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    installed = tmp_path / ".venv" / "publication.py"
    installed.parent.mkdir()
    installed.touch()
    assert find_git_revision(installed) is None
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "mine")
    assert find_git_revision(installed) is None
    git("add", str(installed))
    git("commit", "--quiet", "--message", "tracked")
    assert find_git_revision(installed) == git("rev-parse", "HEAD")
