"""The plug-ins of an installed package work without a change of handsell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from installed_plugins import install_package

pytestmark = pytest.mark.slow  # installs a package and starts interpreters

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from handsell.config import load_config
from handsell.core.errors import ConfigError
from handsell.features.matrix import list_features
from handsell.retrieval import registry
from handsell.testing.planted_taste import plant_blocks, allow_all, build_requests

folder = Path(sys.argv[1])
path = folder / "shop.toml"
path.write_text('name = "shop"\\n[retrieval.latest]\\nenabled = true\\nmin_likes = 2\\n')
config = load_config(path)
sources = config.retrieval.enabled
print("sources", *sources)
print("features", *list_features(config, sources))
events, content = plant_blocks(np.random.default_rng(0))
model = registry.fit("latest", events, config.retrieval, content)
model.save(folder / "latest")
asked = build_requests([(0, 1.0)])
allowed = allow_all(asked, events.n_items)
found, again = (m.retrieve(asked, 5, allowed)[0] for m in (model, registry.load("latest", folder / "latest")))
assert (found == again).all() and found[0, 0] == events.item[np.argmax(np.where(events.weight > 0, events.time, 0))]
path.write_text('name = "shop"\\n[retrieval.latest]\\nmin_likes = 0\\n')
try:
    load_config(path)
except ConfigError as error:
    print("error", str(error).splitlines()[-1])
"""

MATRIX = """
import numpy as np
from handsell.features.matrix import build_matrix, group_features
from handsell.testing.feature_contract import CONFIG, NOW, USERS, FeatureCase
from handsell.testing.small_catalog import draw_candidates

case = FeatureCase.draw(3)
found = draw_candidates(np.random.default_rng(3), case.catalog, USERS, 20)
requests, values = case.requests(case.before(NOW)), case.daily_values(case.before(NOW))
groups = group_features(CONFIG, found.sources)
names = [name for group in groups.values() for name in group]
matrix = build_matrix(requests, found, values, case.catalog, CONFIG)
share, same = (matrix[:, :, names.index(name)] for name in ("user_evening_share", "creator_of_last_item"))
history, creator = requests.history, case.catalog.creator
for b in range(USERS):
    known = history.item[b] >= 0
    evening = (history.time[b][known] // 3_600_000_000 % 24 >= 18).mean() if known.any() else np.nan
    last = creator[history.item[b, -1]] if known.any() else -1
    np.testing.assert_allclose(share[b], evening, rtol=1e-6)
    np.testing.assert_array_equal(same[b], (creator[found.item[b]] == last) & (last >= 0))
print("shares", len(np.unique(share[np.isfinite(share)])))
print("same", int(same.sum()))
print("groups", groups["user"].index("user_evening_share") >= 0, groups["cross"].index("creator_of_last_item") >= 0)
"""

SLATES = """
import numpy as np
from handsell.core.funnel import run_local
from handsell.testing.rule_catalog import build_stage, draw_rule_catalog, write_rule
from handsell.testing.small_catalog import draw_candidates, draw_requests

def rerank(rules):
    rng = np.random.default_rng(0)
    catalog = draw_rule_catalog(rng)
    requests, candidates = draw_requests(rng, catalog), draw_candidates(rng, catalog)
    return run_local(build_stage(catalog, rules).rerank(requests, candidates, 10)).item

rule = write_rule("brands", "apart", items="item.year > 0", column="brand", gap=2)
for name, rules in (("without", None), ("with", rule)):
    brand = rerank(rules) % 7
    near = (brand[:, 1:] == brand[:, :-1]).sum() + (brand[:, 2:] == brand[:, :-2]).sum()
    print(name, near)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a process that has the package, and a copy of the package's source."""
    return install_package(tmp_path_factory.mktemp("plugins"))


def test_a_retriever_of_another_package_needs_no_change_here(installed, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], env=installed[0], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert said["sources"].split()[-1] == "latest", "after the built-in ones"
    assert {"src_latest_rank", "src_latest_z"} <= set(said["features"].split())
    assert said["error"].strip().startswith("retrieval.latest.min_likes: ") and "received: 0" in said["error"]


def test_features_of_another_package_are_columns_of_the_matrix(installed):
    done = subprocess.run([sys.executable, "-c", MATRIX], env=installed[0], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    printed = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert int(printed["shares"]) > 2 and int(printed["same"]) > 0, "the values vary"
    assert printed["groups"] == "True True"


def test_a_rule_of_another_package_changes_slates_and_needs_no_change_here(installed):
    done, absent = (
        subprocess.run([sys.executable, "-c", SLATES], env=env, capture_output=True, text=True, timeout=120)
        for env in (installed[0], {**os.environ, "PYTHONPATH": str(ROOT / "src")})
    )
    assert done.returncode == 0, done.stderr
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert int(counts["without"]) > 0 and int(counts["with"]) == 0, "pairs of one brand that are too near"
    assert "rule 'brands' (no. 1): kind: expected one of exclude, pin" in absent.stderr
    assert "got 'apart'" in absent.stderr


def test_the_tests_of_the_package_pass(installed):
    """They inherit the contract tests of handsell.testing."""
    environment, source = installed
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests"],
        env=environment, capture_output=True, text=True, timeout=300, cwd=source,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3_000:]
    assert " passed" in done.stdout
