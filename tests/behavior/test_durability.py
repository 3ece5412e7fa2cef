"""Rounds of kill -9: nothing acknowledged is lost or counts twice. The benchmark `durability` runs many more."""

import random

import pytest
from benchmarks.durability.durability_run import choose_url, describe_surroundings, run_control, run_rounds
from benchmarks.durability.storage_faults import fill_disk, flip_bits, set_clock_back
from benchmarks.events.event_run import copy_deployment
from benchmarks.events.postgresql_server import start_postgresql
from benchmarks.serving.smoke import sample_users

from postgresql_server import find_programs

pytestmark = pytest.mark.slow  # kills processes
ROUNDS = 10


@pytest.fixture
def rng():
    """Other moments in every run: whatever they are, nothing may be lost."""
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def sqlite_system(deployment):
    """(config, folder, surroundings) of a copy of the deployment with an empty SQLite store."""
    with choose_url("sqlite"), copy_deployment(deployment.config) as (config, folder):
        yield config, folder, describe_surroundings(config, folder, sample_users(config, 50))


def test_kills_on_sqlite_lose_nothing(sqlite_system, rng):
    config, _, around = sqlite_system
    case = run_rounds("sqlite", config, around, ROUNDS, rng)
    assert case.found.acknowledged > 500
    assert case.is_right, case


def test_kills_on_postgresql_lose_nothing(deployment, tmp_path_factory, rng):
    find_programs()  # skips the test without a server
    with (
        start_postgresql(tmp_path_factory.mktemp("server")) as server,
        choose_url(server.url),
        copy_deployment(deployment.config) as (config, folder),
    ):
        around = describe_surroundings(config, folder, sample_users(config, 50))
        case = run_rounds("postgresql", config, around, ROUNDS // 2, rng, server)  # a server takes long to come back
    assert case.found.acknowledged > 250
    assert case.is_right, case


def test_a_writer_that_acknowledges_before_the_commit_is_caught(sqlite_system, rng):
    config, _, around = sqlite_system
    assert run_control(config, around, 5, rng).found.lost > 0


def test_a_full_disk_loses_nothing(sqlite_system, rng):
    _, folder, around = sqlite_system
    found = fill_disk(around, folder / "disk", rng)
    if found is None:
        pytest.skip("no tmpfs can be mounted here: run as root")
    assert found.acknowledged > 100 and found.is_right, found


def test_a_clock_that_is_set_back_an_hour_loses_nothing(sqlite_system):
    _, folder, around = sqlite_system
    found = set_clock_back(around, folder / "clock")
    assert found.acknowledged > 100 and found.is_right, found


def test_a_flipped_bit_is_refused_or_changes_nothing(sqlite_system, rng):
    _, folder, around = sqlite_system
    found = flip_bits(around, folder / "bits", rng, 20)
    assert found["wrong"] == 0 and found["refused"] > 0, found
