"""A state file that is missing, empty or damaged is one sentence with the remedy."""

import pytest

from handsell.core.errors import HandsellError
from handsell.core.json_files import read_json
from handsell.core.paths import Layout
from handsell.jobs.ingest.ingest import _read_meta
from handsell.jobs.train.publication import compute_window_spans
from handsell.jobs.train.windows import write_request_keys

DAMAGED = (b"", b"{", b"[]", b"null", b"\xff")


def test_an_object_is_returned(tmp_path):
    (tmp_path / "a.json").write_text('{"a": "ü"}', encoding="utf-8")
    assert read_json(tmp_path / "a.json", "") == {"a": "ü"}


@pytest.mark.parametrize("left", [None, *DAMAGED])
def test_a_damaged_file_is_one_sentence_with_the_remedy(tmp_path, left):
    if left is not None:
        (tmp_path / "a.json").write_bytes(left)
    with pytest.raises(HandsellError, match="do this") as raised:
        read_json(tmp_path / "a.json", "do this")
    assert str(tmp_path / "a.json") in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("left", DAMAGED)
def test_steps_after_the_data_step_name_it_and_it_starts_afresh(configured, left):
    config = configured('name = "shop"')
    layout = Layout(config.state)
    layout.interactions.mkdir(parents=True)
    (layout.interactions / "part-00000.parquet").write_bytes(b"")
    layout.data_meta.parent.mkdir(parents=True)
    layout.data_meta.write_bytes(left)
    assert _read_meta(layout) == {}
    for step in (write_request_keys, lambda c: compute_window_spans(c, c.state)):
        with pytest.raises(HandsellError, match=r"run `handsell data .*` again"):
            step(config)
