"""Two gateways with PostgreSQL, Redis, S3 and no shared folder: equal answers; each store may fail, and a gateway."""

import pytest

from postgresql_server import PostgresServer, find_programs
from redis_server import RedisServer
from s3_server import S3Server
from shared_nothing import play_outages, print_outages

pytestmark = pytest.mark.slow  # two gateways and three servers, which are killed


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    servers = (PostgresServer(find_programs()), RedisServer(), S3Server())
    postgresql, redis, s3 = servers
    try:
        for server in servers:
            server.start()
        s3.create_bucket()
        found = play_outages(tmp_path_factory.mktemp("shared"), servers)
    finally:
        postgresql.remove()
        redis.remove()
        s3.stop()
    print_outages(found)
    return found


def test_both_gateways_answer_alike_at_any_time_and_know_a_new_event(seen):
    assert len(seen["slates"]) == 6 and len(seen["slates"][0]) == 5
    assert all(slate == seen["slates"][0] for slate in seen["slates"])
    assert seen["cold"] == [False, False]


def test_promotions_and_rollbacks_reach_both(seen):
    assert len(seen["followed"]) == 4 and all(seconds is not None for seconds in seen["followed"])


@pytest.mark.parametrize("outage", ["S3 killed", "S3 silent, the other gateway killed"])
def test_requests_do_not_need_object_storage(seen, outage):
    assert seen[outage]["n"] >= 15
    assert seen[outage]["failed"] == {} and seen[outage]["degraded"] == {}


@pytest.mark.parametrize(("outage", "cause"), [("PostgreSQL killed", "event_log"), ("Redis killed", "features")])
def test_a_killed_store_degrades_answers_until_it_is_back(seen, outage, cause):
    assert seen[outage]["n"] >= 15 and seen[outage]["failed"] == {}
    assert cause in seen[outage]["degraded"]
    assert seen[outage]["recovered_s"] is not None


def test_no_acknowledged_event_is_lost(seen):
    assert seen["acknowledged"] > 100
    assert (seen["lost"], seen["twice"]) == (0, 0)


def test_what_serving_copied_is_in_folders_of_its_own(seen):
    assert all({"bundles", "feast"} <= set(names) and "events" not in names for names in seen["folders"])
