"""What replicas do not import: each would take tens of MiB in every one of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from serving_world import write_world

pytestmark = pytest.mark.slow  # every test starts an interpreter that imports most of the service

TRAINING = {"torch", "sklearn", "duckdb", "ibis", "implicit", "ray.data", "ray.train", "matplotlib"}
PRINT = "import sys; print(*sys.modules)"
HOOK = "from handsell.serving.ray_processes import leave_out_pandas; leave_out_pandas()"
STAGES = """
from handsell.serving.graph import bundle_watcher, deployments, stage_loading
opened = bundle_watcher.open_first_bundle({config!r}, "live")
for stage in ("candidate", "ranking", "reranking"):
    bundle_watcher.warm_up(getattr(stage_loading, f"load_{{stage}}_stage")(opened), opened)
"""
GATEWAY = """
from handsell.config import load_config
from handsell.serving.graph import gateway, loaded_bundle, remote, service
from handsell.serving.http import api
gateway.feast_store(load_config({config!r}))
"""
WRITER = """
from handsell.config import load_config
from handsell.events.store.opening import open_writer
from handsell.serving.graph import deployments, event_sink
event_sink.LocalSink(open_writer(load_config({config!r}), 5.0)).close()
"""
GUARD = "from handsell.serving.guard_rails import deployment, guard"


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    return str(write_world(tmp_path_factory.mktemp("shop")).config.source)


def list_modules(code: str) -> set[str]:
    """Run code in a process that starts as a replica does; return the modules that it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", f"{HOOK}\n{code}\n{PRINT}"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_stages_need_neither_feast_nor_what_trains(config):
    modules = list_modules(STAGES.format(config=config))
    assert modules & (TRAINING | {"feast", "sqlalchemy", "pandas"}) == set()
    assert {"ray.serve", "numpy"} <= modules


def test_a_gateway_reads_online_rows_without_the_offline_store(config):
    modules = list_modules(GATEWAY.format(config=config))
    assert modules & TRAINING == set() and "feast" in modules


@pytest.mark.parametrize("code", [WRITER, GUARD], ids=["EventLog", "ExperimentGuard"])
def test_small_replicas_have_no_data_frames(config, code):
    assert list_modules(code.format(config=config)) & (TRAINING | {"pandas", "feast"}) == set()


def test_only_ranking_imports_xgboost(config):
    load = "from handsell.serving.graph import bundle_watcher, stage_loading"
    code = f"{load}\nstage_loading.load_reranking_stage(bundle_watcher.open_first_bundle({config!r}, 'live'))"
    assert list_modules(code) & {"xgboost", "scipy.sparse", "scipy.linalg"} == set()


def test_the_console_does_without_data_frames():
    code = "from handsell.console import deployment\ndeployment.import_pages()"
    assert list_modules(code) & (TRAINING | {"pandas", "xgboost", "scipy.sparse"}) == set()


def test_serve_s_controller_has_no_data_frames():
    done = subprocess.run(
        [sys.executable, "-c", f"from handsell.serving.ray_processes import import_serve; import_serve()\n{PRINT}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert {"pandas", "pyarrow"} & set(done.stdout.split()) == set()


def test_pandas_can_be_imported_after_the_start():
    assert "pandas" in list_modules("import pandas")


@pytest.mark.parametrize(
    "code",
    [
        "import pandas, pyarrow; assert pyarrow.array(pandas.Series([1.0, None])).null_count == 1",
        "import pyarrow; assert pyarrow.table({'a': [1]}).to_pandas()['a'].tolist() == [1]",
        "import pyarrow; pyarrow.array([1, None]).to_numpy(zero_copy_only=False)",
    ],
    ids=["a series", "to a data frame", "to an array"],
)
def test_arrow_knows_pandas_when_it_is_imported_later(code):
    assert "pandas" in list_modules(code)
