"""A job writes through the running service's writer, and opens the store itself where none runs."""

from types import SimpleNamespace

import pytest

from backed_up_shop import build_event, build_slate, read_event_ids
from handsell.core.paths import Layout
from handsell.events.store.sqlite_reader import SqliteReader
from handsell.jobs import store_writer
from handsell.jobs.batch.slate_log import log_slates
from handsell.jobs.cleaning import clean_on_cluster
from handsell.jobs.store_writer import open_store_writer


@pytest.fixture
def shop(configured):
    return configured('name = "shop"\n')


def test_without_a_service_the_store_is_opened_and_closed(shop):
    for number in (1, 2):  # the second one gets the lock
        with open_store_writer(shop) as write:
            assert write("append", [build_event(number)]).accepted == 1
    assert read_event_ids(shop) == ["e1", "e2"]


def test_with_a_service_its_writer_is_called_and_the_file_is_not_opened(shop, monkeypatch):
    calls = []

    class Writer:
        class call:
            @staticmethod
            def remote(method, *arguments):
                calls.append((method, *arguments))
                return SimpleNamespace(result=lambda timeout_s: timeout_s)

    monkeypatch.setattr(store_writer, "_find_writer", Writer)
    with open_store_writer(shop) as write:
        assert write("trim", "events", 7) == store_writer.ANSWER_S
    assert calls == [("trim", "events", 7)] and not Layout(shop.state).event_log.exists()


def test_a_job_calls_the_service_without_an_event_loop(monkeypatch):
    """In a job, the cluster's variables would let the handle look for the event loop of its caller."""
    import ray
    from ray import serve

    class Handle:
        is_initialized, begun = False, ()

        def _init(self, **options):
            assert not self.is_initialized
            self.is_initialized, self.begun = True, options

    handle = Handle()
    running = SimpleNamespace(deployments={store_writer.WRITER: None})
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={store_writer.APPLICATION: running}))
    monkeypatch.setattr(serve, "get_deployment_handle", lambda *_: handle)
    for _ in range(2):  # Serve returns the same handle again
        assert store_writer._find_writer() is handle
    assert handle.begun == {"_run_router_in_separate_loop": True}


def test_slates_of_a_job_are_stored_once(shop):
    slates = [build_slate(n) for n in range(1_200)]
    log_slates(shop, slates)
    log_slates(shop, slates[:3])
    assert len(SqliteReader(Layout(shop.state).event_log).read_slates(0, 5_000)) == 1_200


def test_clean_starts_no_cluster(shop, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("handsell.jobs.cleaning.connect", lambda *_: pytest.fail("a cluster was started"))
    assert clean_on_cluster(shop).startswith("removed 0 events")
