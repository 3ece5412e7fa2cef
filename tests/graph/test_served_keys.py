"""Keys beside a running service: a SQLite store is written by the service's writer, and its address is known."""

from contextlib import closing

import ray

from handsell.events.store.opening import open_reader
from handsell.jobs import api_keys, store_writer
from handsell.jobs.api_keys import KeyTerms
from handsell.serving.http.app import find_host


def test_keys_are_stored_by_the_running_writer(shop, world, monkeypatch):
    monkeypatch.setattr(store_writer, "APPLICATION", "shop")
    monkeypatch.setenv("RAY_ADDRESS", "this cluster")
    key, text = api_keys.create(world.config, KeyTerms("web", "server", ("recommend",)))
    api_keys.revoke(world.config, key.key_id)
    with closing(open_reader(world.config)) as reader:
        stored = {one.key_id: one for one in reader.read_keys()}[key.key_id]
    assert stored.revoked_us is not None and stored.secret != text
    assert shop.get("/v1/popular").status_code == 200  # keys are off


def test_the_address_on_which_serve_listens_is_known(shop):
    assert find_host() == "127.0.0.1"
    assert ray.get(ray.remote(num_cpus=0)(find_host).remote()) == "127.0.0.1"  # `serve deploy` builds in a task
