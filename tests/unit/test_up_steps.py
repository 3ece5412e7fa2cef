"""A second `make up` runs a step again if any of its inputs has changed."""

import io
import os
from types import ModuleType

import pytest
from rich.console import Console

from handsell.core.errors import HandsellError
from handsell.jobs import step_records
from handsell.local.cluster import settings_digest
from handsell.local.steps import Steps
from handsell.local.up import step_inputs

SHOP = """
name = "shop"
[data]
format = "tables"
[data.tables.events]
path = "events"
[events.types]
view = { weight = 1.0 }
"""


def test_new_rows_in_a_source_table_change_the_inputs(tmp_path, configured):
    log = tmp_path / "events" / "1.csv"
    log.parent.mkdir()
    log.write_text("user_id,item_id,time,type\nu,i,1,view\n")
    config = configured(SHOP)
    before = step_inputs(config)["data"]
    assert step_inputs(config)["data"] == before
    with log.open("a") as out:
        out.write("v,j,2,view\n")
    assert step_inputs(config)["data"] != before


def test_a_new_file_changes_the_inputs_and_a_missing_table_is_no_error_yet(tmp_path, configured):
    config = configured(SHOP)
    nothing = step_inputs(config)["data"]
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "1.csv").write_text("user_id,item_id,time,type\n")
    one = step_inputs(config)["data"]
    assert one != nothing
    os.link(tmp_path / "events" / "1.csv", tmp_path / "events" / "2.csv")
    assert step_inputs(config)["data"] != one


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ("[split]\ntest_days = 1", {"doctor", "features", "train"}),
        ('[tuning]\nsources = ["item_knn"]', {"train"}),
        ('[features]\nonline_store = "localhost:6379"', {"online store"}),
        ("[jobs]\npartitions = 9", {"data"}),
        ("[features]\nhistory_length = 7", {"features"}),
        ("[retrieval.als]\nepochs = 3", {"train"}),
        ("[serving]\nport = 8001", {"doctor"}),
        ('[reranking]\nrules = "rules.toml"', {"doctor", "train"}),
        ("[surfaces.home]\ncount = 3", {"doctor", "train"}),
    ],
)
def test_a_changed_section_changes_the_inputs_of_the_steps_that_use_it(configured, change, changed):
    before, after = step_inputs(configured(SHOP)), step_inputs(configured(SHOP + change))
    assert {step for step in before if before[step] != after[step]} == changed


def test_another_online_store_in_the_environment_is_filled_and_reaches_the_replicas(configured, monkeypatch):
    config = configured(SHOP)
    before, started = step_inputs(config), settings_digest(config)
    monkeypatch.setenv("HANDSELL_ONLINE_STORE", "127.0.0.1:6390")
    after = step_inputs(config)
    assert {step for step in before if before[step] != after[step]} == {"online store"}
    assert settings_digest(config) != started


def test_a_cluster_with_other_settings_is_started_again(configured, monkeypatch):
    changes = ("", "[serving]", "[jobs]\nnum_cpus = 3", "[serving]\nport = 8001", '[serving]\nhost = "0.0.0.0"')
    assert len({settings_digest(configured(SHOP + change)) for change in changes}) == len(changes) - 1
    before = settings_digest(configured(SHOP))
    monkeypatch.setenv("AWS_PROFILE", "shop")  # workers read remote tables
    assert settings_digest(configured(SHOP)) != before


def test_changed_definitions_of_views_are_applied_again(configured, tmp_path):
    repo = tmp_path / "feature_repo"
    repo.mkdir()
    (repo / "feature_store.yaml").write_text("")
    before = step_inputs(configured(SHOP))
    (repo / "views.py").write_text("")
    after = step_inputs(configured(SHOP))
    assert {step for step in before if before[step] != after[step]} == {"feature repo"}


def test_a_step_whose_results_are_gone_runs_again(tmp_path):
    ran: list[bool] = []
    for there in (False, True, False):
        Steps(tmp_path, 1, Console(file=io.StringIO())).run(
            "data", "…", lambda: ran.append(True) or "read", is_there=lambda there=there: there
        )
    assert len(ran) == 2


def test_a_changed_plugin_changes_the_code(tmp_path, monkeypatch):
    module = ModuleType("shop")
    module.__file__ = str(tmp_path / "shop.py")
    monkeypatch.setattr(step_records, "import_plugins", lambda: [module])
    digests = {(tmp_path / "shop.py").write_text(text) and step_records.code_digest() for text in ("a", "b")}
    assert len(digests) == 2


def run_steps(folder, **inputs) -> list[str]:
    """Names of the steps that ran: first, store (without effect on later steps), last."""
    ran: list[str] = []

    def act(name: str) -> str:
        ran.append(name)
        if inputs.get(name) == "fails":
            raise HandsellError("no")
        return "[/done]"

    started = Steps(folder, 3, Console(file=io.StringIO()))
    for name in ("first", "store", "last"):
        started.run(name, "…", lambda name=name: act(name), inputs.get(name), feeds_later=name != "store")
    return ran


def test_a_step_runs_again_if_its_inputs_or_those_before_it_have_changed(tmp_path):
    assert run_steps(tmp_path) == ["first", "store", "last"] and run_steps(tmp_path) == []
    assert run_steps(tmp_path, store=1) == ["store"]
    assert run_steps(tmp_path, store=1, first=1) == ["first", "store", "last"]


@pytest.mark.parametrize("left", ["", "{", "[]", "{}", "null"])
def test_a_damaged_record_of_a_step_counts_as_none(tmp_path, left):
    run_steps(tmp_path)
    (tmp_path / "last.json").write_text(left)
    assert run_steps(tmp_path) == ["last"]


def test_a_step_that_failed_runs_again_with_the_inputs_of_its_last_success(tmp_path):
    run_steps(tmp_path)
    with pytest.raises(HandsellError, match="step 2/3"):
        run_steps(tmp_path, store="fails")
    assert run_steps(tmp_path) == ["store"]
