"""The failure policy: what it suppresses, records and raises."""

import asyncio
import logging

import pytest

from handsell.core.failures import Failures


def test_a_failed_part_is_recorded_once_logged_and_left_out(caplog):
    failures = Failures()
    value = "default"
    with caplog.at_level(logging.ERROR):
        for name in ("ranking", "features", "ranking"):
            with failures.tolerate(name):
                raise ConnectionError("gone")
                value = "never"
    assert failures.names == ("ranking", "features") and value == "default"
    assert "ranking failed" in caplog.text and "gone" in caplog.text


def test_a_part_that_works_leaves_no_trace():
    failures = Failures()
    with failures.tolerate("ranking"):
        value = 1
    assert value == 1 and failures.names == ()


def test_strict_failures_raise_and_record_nothing():
    failures = Failures(strict=True)
    with pytest.raises(ConnectionError, match="gone"), failures.tolerate("features"):
        raise ConnectionError("gone")
    assert failures.names == ()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_stops_the_process_or_the_task_passes(error):
    failures = Failures()
    with pytest.raises(error), failures.tolerate("ranking"):
        raise error
    assert failures.names == ()


def test_names_added_later_keep_their_first_place():
    failures = Failures()
    failures.add("a", "b")
    failures.add("b", "c", "a")
    assert failures.names == ("a", "b", "c")
