"""What makes a second `make up` do a step again: every input that the step depends on."""

import os

from handsell.local import up

SHOP = """
name = "shop"
[data]
format = "tables"
[data.tables.events]
path = "events"
[events.types]
view = { weight = 1.0 }
"""


def test_new_rows_in_the_users_own_tables_are_noticed(tmp_path, configured):
    log = tmp_path / "events" / "1.csv"
    log.parent.mkdir()
    log.write_text("user_id,item_id,time,type\nu,i,1,view\n")
    config = configured(SHOP)
    before = up._data_inputs(config)
    assert up._data_inputs(config) == before
    with log.open("a") as out:
        out.write("v,j,2,view\n")
    assert up._data_inputs(config) != before


def test_a_new_file_is_noticed_and_a_missing_table_is_left_to_the_step(tmp_path, configured):
    config = configured(SHOP)
    nothing = up._data_inputs(config)
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "1.csv").write_text("user_id,item_id,time,type\n")
    one = up._data_inputs(config)
    assert one != nothing
    os.link(tmp_path / "events" / "1.csv", tmp_path / "events" / "2.csv")
    assert up._data_inputs(config) != one
