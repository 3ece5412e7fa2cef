"""The first `handsell up` starts the service while the first bundle is trained: its replicas wait for that bundle."""

import threading

import pytest

from handsell.core.errors import BundleError, HandsellError
from handsell.core.paths import Layout
from handsell.local import up
from handsell.serving.graph import loading

SHOP = """
name = "shop"
[data]
format = "tables"
[data.tables.events]
path = "events"
[events.types]
view = { weight = 1.0 }
"""


@pytest.fixture
def config(configured):
    return configured(SHOP)


def test_a_replica_waits_until_a_bundle_is_live(config, monkeypatch, caplog):
    answers = iter([None, None, "b1", "b1"])

    def find(asked, bundle):
        assert (asked, bundle) == (config, "live")
        return next(answers)

    monkeypatch.setattr(loading, "find_bundle_id", find)
    monkeypatch.setattr(loading, "FIRST_CHECK_S", 0.0)
    assert loading.await_bundle(config, "live") == "b1"
    assert [record.message for record in caplog.records] == ["no bundle of shop is live: waiting for the first one"]


def test_without_a_bundle_for_long_the_error_says_what_to_do(config, monkeypatch):
    monkeypatch.setattr(loading, "FIRST_BUNDLE_S", -1.0)
    with pytest.raises(BundleError, match="no bundle of shop is live: run `handsell train"):
        loading.await_bundle(config, "live")


def test_only_a_replica_waits_and_only_for_a_promotion(config, monkeypatch):
    monkeypatch.setattr(loading, "FIRST_CHECK_S", 600.0)
    with pytest.raises(BundleError, match="no bundle of shop is live"):  # a command, such as `handsell rules diff`
        loading.open_bundle(str(config.source), "live")
    with pytest.raises(BundleError, match="nothing-like-it"):
        loading.open_first_bundle(str(config.source), "nothing-like-it")
    pointer = Layout(config.state).bundles / "live.json"
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.write_text("{")
    with pytest.raises(BundleError, match="live"):  # damaged: waiting does not mend it
        loading.open_first_bundle(str(config.source), "live")


@pytest.fixture
def calls(monkeypatch):
    """What `_start_service` does, in order; deploying waits for `proceed`."""
    done, proceed = [], threading.Event()

    def deploy(config, head, topology):
        assert proceed.wait(30)
        done.append("deploy")
        return f"{topology} at http://here"

    monkeypatch.setattr(up.cluster, "wait_until_started", lambda config, head: done.append("wait"))
    monkeypatch.setattr(up.service, "deploy", deploy)
    return done, proceed


def start(monkeypatch, config, live, few):
    monkeypatch.setattr(up, "has_live_bundle", lambda config: live)
    monkeypatch.setattr(up, "has_few_events", lambda config: few)
    return up._start_service(config, None, "graph")


@pytest.mark.parametrize("few", [True, False])
def test_before_the_first_bundle_the_service_is_deployed_beside_the_training(config, monkeypatch, calls, few):
    done, proceed = calls
    finish = start(monkeypatch, config, live=False, few=few)
    assert "deploy" not in done
    proceed.set()
    assert finish() == "graph at http://here"
    assert done == ["wait", "deploy"]


def test_a_service_with_a_bundle_is_deployed_after_the_training(config, monkeypatch, calls):
    done, proceed = calls
    proceed.set()
    finish = start(monkeypatch, config, live=True, few=True)
    assert done == ["wait"]
    finish()
    assert done == ["wait", "deploy"]


def test_an_error_of_the_deployment_is_raised_when_its_step_comes(config, monkeypatch, calls):
    def fail(*_):
        raise HandsellError("`serve deploy` failed")

    monkeypatch.setattr(up.service, "deploy", fail)
    finish = start(monkeypatch, config, live=False, few=True)
    with pytest.raises(HandsellError, match="serve deploy"):
        finish()
