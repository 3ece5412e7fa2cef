"""A second `make up` runs a step again if any of its inputs has changed."""

import os

import pytest

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
        ("[split]\ntest_days = 1", {"features", "train"}),
        ("[features]\nhistory_length = 7", {"features"}),
        ("[retrieval.als]\nepochs = 3", {"train"}),
        ("[serving]\nport = 8001", set()),
    ],
)
def test_a_changed_section_changes_the_inputs_of_the_steps_that_use_it(configured, change, changed):
    before, after = step_inputs(configured(SHOP)), step_inputs(configured(SHOP + change))
    assert {step for step in before if before[step] != after[step]} == changed
