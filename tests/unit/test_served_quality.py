"""Benchmark of served quality: splits of the data sets, metrics of lists, and baselines."""

import csv
import json
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

import numpy as np
import pytest
from benchmarks.quality import served_quality
from benchmarks.quality.served_baselines import build_baselines, list_items, read_log, score_lists
from benchmarks.quality.served_tables import (
    SETS,
    build_config,
    hold_out_baskets,
    hold_out_from,
    hold_out_likes,
    write_tables,
)

from handsell.config import load_config
from handsell.core.errors import DataError, HandsellError

KINDS = ("like", "seen", "dislike")


@pytest.fixture
def ratings(rng):
    """Events of 40 users with 2 to 30 distinct items each; many of them share a second."""
    events = []
    for user in range(40):
        items = rng.permutation(60)[: rng.integers(2, 31)]
        times = np.sort(rng.integers(0, 20, len(items)))
        events += [(f"u{user}", f"i{i}", int(t), KINDS[rng.integers(3)]) for i, t in zip(items, times, strict=True)]
    return events


@pytest.fixture
def small_data(tmp_path):
    """A root of data sets with a few lines of Beauty, without the others."""
    folder = tmp_path / "data" / "amazon-beauty"
    folder.mkdir(parents=True)
    (folder / "Beauty.txt").write_text("1 1 2 3 4 5 6\n2 2 3 4 5 6\n3 7 1\n")
    (folder / "Beauty_item2attributes.json").write_text(json.dumps({"1": [1, 2], "7": [2]}))
    return tmp_path / "data"


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_deployment(folder, events, repeat="exclude"):
    """Train table and config of (user, item) events in order of time."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{user},{item},{time},like" for time, (user, item) in enumerate(events)]
    (folder / "train.csv").write_text("\n".join(["user_id,item_id,time,type", *lines]))
    types = "[events.types]\nlike = { weight = 1.0 }\n"
    (folder / "served.toml").write_text(f'name = "test"\n{types}[surfaces.home]\nrepeat = "{repeat}"\n')
    return read_log(folder)


def lists_of(log, name, users):
    return list_items(log, build_baselines(log)[name](), users)


def test_nothing_of_or_after_the_first_held_out_like_stays_in_train(ratings):
    cut = hold_out_likes(ratings)
    for user, held_out in cut.test.items():
        likes = [
            event for event in sorted(ratings, key=lambda e: (e[2], e[1])) if (event[0], event[3]) == (user, "like")
        ]
        assert held_out == {item for _, item, _, _ in likes[-3:]}
        mine = [event for event in cut.train if event[0] == user]
        assert all(time < likes[-3][2] and item not in held_out for _, item, time, _ in mine)


def test_users_with_few_likes_stay_whole(ratings):
    cut = hold_out_likes(ratings)
    others = {event[0] for event in ratings} - cut.test.keys()
    assert cut.test and others
    for user in others:
        mine = [event for event in ratings if event[0] == user]
        assert sum(event[3] == "like" for event in mine) < 8
        assert sorted(mine) == sorted(event for event in cut.train if event[0] == user)


def test_the_development_part_of_likes_is_not_in_the_test_part(ratings):
    test, development = hold_out_likes(ratings), hold_out_likes(hold_out_likes(ratings).train)
    assert development.test and development.test.keys() <= test.test.keys()
    assert not any(items & test.test[user] for user, items in development.test.items())
    held_out = {(user, item) for user, items in test.test.items() for item in items}
    assert not held_out & {event[:2] for event in development.train}


def test_baskets_are_held_out_one_by_one_and_end_together():
    histories = {"u1": [["a"], ["b", "c"], ["d"]], "u2": [["a"]]}
    test = hold_out_baskets(histories, 2, 1_000, "buy")
    development = hold_out_baskets(histories, 2, 1_000, "buy", development=True)
    assert (test.test, development.test) == ({"u1": {"d"}}, {"u1": {"b", "c"}})
    assert {event[:2] for event in development.train} == {("u1", "a"), ("u2", "a")}
    times = {event[:2]: event[2] for event in test.train}
    assert times["u1", "b"] == times["u2", "a"] == times["u1", "a"] + 1_000
    assert times["u1", "c"] == times["u1", "b"] + 60


def test_days_hold_out_items_whose_weights_add_up_to_something():
    days = [("u", "a", 1, "listen"), ("u", "b", 5, "listen"), ("u", "c", 5, "skip"), ("u", "b", 6, "skip")]
    days += [("u", "d", 6, "listen"), *[("u", "d", 7, "skip")] * 2, ("v", "a", 5, "listen")]
    cut = hold_out_from(days, 5, {"listen": 1.0, "skip": -0.5})
    assert cut.train == days[:1]
    assert cut.test == {"u": {"b"}, "v": {"a"}}


def test_written_tables_are_a_deployment(small_data, tmp_path):
    config = load_config(write_tables("beauty", small_data, tmp_path / "cut"))
    assert config.serving.clock == "data" and config.surfaces["home"].repeat == "exclude"
    assert {(row["user_id"], row["item_id"]) for row in read(tmp_path / "cut" / "test.csv")} == {
        ("u1", "i6"),
        ("u2", "i6"),
    }
    assert len(read(tmp_path / "cut" / "train.csv")) == 5 + 4 + 2
    assert read(tmp_path / "cut" / "items.csv")[0] == {"item_id": "i1", "tags": "a1|a2"}


def test_development_and_a_limit_of_users_are_written_too(small_data, tmp_path):
    write_tables("beauty", small_data, tmp_path / "cut", development=True)
    assert read(tmp_path / "cut" / "test.csv") == [{"user_id": "u1", "item_id": "i5"}]
    for folder in ("first", "second"):
        write_tables("beauty", small_data, tmp_path / folder, users=1)
    assert len(read(tmp_path / "first" / "test.csv")) == 1
    assert read(tmp_path / "first" / "test.csv") == read(tmp_path / "second" / "test.csv")


def test_every_config_is_valid(configured):
    for name, chosen in SETS.items():
        config = configured(build_config(name, chosen, items=True))
        assert any(kind.weight > 0 for kind in config.events.types.values())


def test_unknown_sets_and_missing_data_are_reported(small_data, tmp_path):
    with pytest.raises(DataError, match=r"ml-100k, ml-latest-small, .* got 'ml-1b'"):
        write_tables("ml-1b", small_data, tmp_path)
    with pytest.raises(DataError, match=r"ratings\.csv does not exist: set HANDSELL_TEST_DATA"):
        write_tables("ml-latest-small", small_data, tmp_path)


def test_the_command_names_an_unknown_set(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["served_quality", "--sets", "ml-1b"])
    with pytest.raises(SystemExit, match="got 'ml-1b'"):
        served_quality.main()


def test_metrics_of_planted_lists():
    scored = score_lists([["a", "x", "b"], ["x"], []], [{"a", "b", "c"}, {"x"}, {"y"}])
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert scored.ndcg == pytest.approx([(1 + 1 / np.log2(4)) / ideal, 1, 0])
    assert scored.recall == pytest.approx([2 / 3, 1, 0])
    assert scored.shown == 3


def test_the_ideal_is_ten_hits_at_most():
    many = [f"i{place}" for place in range(12)]
    scored = score_lists([many[:10]], [set(many)])
    assert scored.ndcg == pytest.approx([1])
    assert scored.recall == pytest.approx([10 / 12])


@pytest.mark.parametrize("name", ["item cosine", "item cosine, recent", "EASE", "EASE, recent", "ALS", "ALS, recent"])
def test_baselines_find_a_planted_taste(tmp_path, rng, name):
    """Each of two groups likes its own items; the items that a user lacks must come first."""
    events = [(f"u{u}", f"i{12 * (u % 2) + i}") for u in range(30) for i in rng.permutation(12)[:8]]
    log = write_deployment(tmp_path, events)
    for user, items in zip(("u0", "u1"), lists_of(log, name, ["u0", "u1"]), strict=True):
        had = {item for who, item in events if who == user}
        group = {f"i{12 * (user == 'u1') + i}" for i in range(12)}
        assert set(items[:4]) == group - had
        assert not had & set(items)


def test_recent_popularity_counts_the_newest_tenth(tmp_path):
    events = [(f"u{n}", "old") for n in range(30)] + [(f"v{n}", "new") for n in range(4)]
    log = write_deployment(tmp_path, [*events, ("w", "else")])
    assert lists_of(log, "popularity", ["w"])[0][0] == "old"
    assert lists_of(log, "popularity, recent", ["w"])[0][0] == "new"


def test_own_items_are_recommended_where_repeats_are_allowed(tmp_path):
    events = [("u", "a"), ("u", "b"), ("u", "b"), ("u", "c"), *((f"v{n}", "popular") for n in range(5))]
    log = write_deployment(tmp_path, events, repeat="allow")
    assert lists_of(log, "own most frequent", ["u"])[0][0] == "b"
    assert set(lists_of(log, "own most frequent", ["u"])[0][:3]) == {"a", "b", "c"}
    assert lists_of(log, "own most recent", ["u"])[0] == ["c", "b", "a", "popular"]
    assert "own most frequent" not in build_baselines(write_deployment(tmp_path, events))


def test_ports_are_set_and_replaced_in_a_config(tmp_path):
    path = tmp_path / "served.toml"
    path.write_text('name = "test"\n\n[jobs]\nnum_cpus = 2\n\n[serving]\nclock = "data"\n')
    for _ in range(2):
        port = served_quality.set_ports(path)
        config = tomllib.loads(path.read_text())
        assert config["serving"] == {"port": port, "clock": "data"}
        assert config["jobs"].keys() == {"num_cpus", "gcs_port", "dashboard_port"}
        assert len({port, config["jobs"]["gcs_port"], config["jobs"]["dashboard_port"]}) == 3


@pytest.fixture
def service():
    """Address of a service that recommends each user its own id, and fails for ids that start with `broken`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            user = unquote(self.path.split("/")[3])
            self.send_response(503 if user.startswith("broken") else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"items": [{"item_id": user}], "degraded": user == "slow"}).encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_requests_work_for_any_user_id(service):
    users = ["u1", "a/b c?", "slow", "broken", "ü%2F"]
    lists, failures = served_quality.request_lists(service, users)
    assert lists == [["u1"], ["a/b c?"], ["slow"], [], ["ü%2F"]]
    assert failures == 2


def test_a_service_that_always_fails_is_an_error(service):
    with pytest.raises(HandsellError, match=r"all 2 requests to .* failed, the first with 503"):
        served_quality.request_lists(service, ["broken", "broken too"])


def test_a_running_service_is_compared_with_the_baselines(service, small_data, tmp_path, monkeypatch):
    """The service recommends user ids, which are no items: NDCG is 0."""
    write_tables("beauty", small_data, tmp_path / "cut")
    out = tmp_path / "out.json"
    options = ["--url", service, "--folder", str(tmp_path / "cut"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["served_quality", *options])
    with pytest.raises(SystemExit) as end:
        served_quality.main()
    assert end.value.code == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["set"], row["users"], row["served"], row["failed or degraded"]) == ("cut", 2, 0, 0)
    assert {each["model"] for each in json.loads(out.read_text())["models"]} >= {"served", "popularity", "EASE"}
