"""Protocols end to end, on files in which each user takes items of one of four blocks."""

import json
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.protocols.__main__ import app
from typer.testing import CliRunner

from handsell.core.errors import ConfigError, HandsellError
from handsell.retrieval.config import retrievers

BLOCKS, PER_BLOCK, USERS = 4, 12, 100


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files with a line per user: shuffled items of block u % BLOCKS, the last three for the test."""
    rng, root = np.random.default_rng(3), tmp_path_factory.mktemp("protocols")
    lines = [rng.permutation(PER_BLOCK)[:9] * BLOCKS + u % BLOCKS for u in range(USERS)]

    def write(name, rows):
        (root / name).write_text("\n".join(" ".join(map(str, row)) for row in rows) + "\n")
        return str(root / name)

    users = list(enumerate(lines))
    scrambled = rng.permutation(USERS)  # the same test items, for other users
    return {
        "train": write("train", [(u, *line[:6]) for u, line in users]),
        "test": write("test", [(u, *line[6:]) for u, line in users]),
        "scrambled": write("scrambled", [(u, *lines[scrambled[u]][6:]) for u, _ in users]),
        "data": write("data", [(u, *line) for u, line in users]),
        "scrambled_last": write("scrambled_last", [(u, *line[:-1], lines[scrambled[u]][-1]) for u, line in users]),
        "sessions": write("sessions", [line[:5] for line in lines]),
        "prefixes": write("prefixes", [line[-3:] for line in lines]),
        "scrambled_prefixes": write("other", [(*line[-3:-1], lines[scrambled[u]][-1]) for u, line in users]),
        "attributes": write("attributes", [[json.dumps({str(i): [i % BLOCKS] for i in range(BLOCKS * PER_BLOCK)})]]),
    }


FORMATS = {
    "adjacency": ("--train", "train", "--test", "test"),
    "sequences": ("--data", "data", "--attributes", "attributes"),
    "sessions": ("--train", "sessions", "--test", "prefixes"),
}
SCRAMBLED = {
    "adjacency": ("--train", "train", "--test", "scrambled"),
    "sequences": ("--data", "scrambled_last", "--attributes", "attributes"),
    "sessions": ("--train", "sessions", "--test", "scrambled_prefixes"),
}


@pytest.fixture
def measured(files, tmp_path):
    def run(format: str, *options: str, how=FORMATS) -> tuple[dict, str]:
        paths = [files.get(word, word) for word in how[format]]
        out = tmp_path / "out.json"
        done = CliRunner().invoke(app, ["--format", format, *paths, *options, "--json", str(out)])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return json.loads(out.read_text()), done.output

    return run


def by_model(found: dict) -> dict[str, dict]:
    return {row["model"]: row for row in found["rows"]}


@pytest.mark.parametrize(
    ("format", "metric", "chance"),
    [("adjacency", "recall@6", 6 / 42), ("sequences", "hr@6", 6 / 40), ("sessions", "p@6 %", 100 * 6 / 48)],
)
def test_models_that_learn_find_the_block_and_popularity_does_not(measured, format, metric, chance):
    found, output = measured(format, "--models", "popularity,item_knn", "--blend", "item_knn,als", "--k", "6")
    rows = by_model(found)
    assert list(rows) == ["popularity", "item_knn", "als", "blend(item_knn,als)"]
    assert rows["item_knn"]["metrics"][metric] > 3 * chance
    assert rows["blend(item_knn,als)"]["metrics"][metric] > 3 * chance
    assert rows["popularity"]["metrics"][metric] < 2 * chance
    for row in rows.values():
        assert row["users_per_s"] > 0 and row["peak_mib"] > 10 and row["search"]["complete"]
        assert row["model"] in output and f"{row['users_per_s']:,.0f}" in output
    assert "trial 1" in output and "of the budget left" in output  # progress, on stderr


@pytest.mark.parametrize("format", FORMATS)
def test_the_test_part_does_not_affect_what_is_chosen(measured, format):
    options = ("--models", "popularity,item_knn", "--blend", "item_knn,popularity", "--k", "5")
    true, false = (by_model(measured(format, *options, how=how)[0]) for how in (FORMATS, SCRAMBLED))
    for name, row in true.items():
        assert row["params"] == false[name]["params"]
        assert row["validation"] == false[name]["validation"]
        values = [[trial["value"] for trial in r["search"]["trials"]] for r in (row, false[name])]
        assert values[0] == values[1]
    assert true["item_knn"]["metrics"] != false["item_knn"]["metrics"], (
        "the scrambled file gives the same metrics: this test cannot fail"
    )


def test_the_same_seed_gives_the_same_figures(measured):
    options = ("--models", "item_knn,als,two_tower", "--blend", "item_knn,als", "--seed", "3", "--defaults")
    first, second = (by_model(measured("adjacency", *options)[0]) for _ in range(2))
    for name, row in first.items():
        assert row["metrics"] == second[name]["metrics"] and row["params"] == second[name]["params"]
    assert first["als"]["params"] == {} and first["blend(item_knn,als)"]["params"] == {"item_knn": 0.5, "als": 0.5}


def test_all_is_every_model_that_fits(measured):
    found, output = measured("sequences", "--models", "all", "--defaults")
    assert set(by_model(found)) == set(retrievers()) - {"blend", "history"}
    assert "skipped: history returns only items of the history" in output
    assert all(row["metrics"]["hr@10"] > 0.1 and not row["error"] for row in found["rows"])


def test_hyper_parameters_of_an_earlier_run_are_used(measured, files, tmp_path):
    chosen = tmp_path / "chosen.json"
    rows = [
        {"model": "popularity", "params": {"half_life_days": 2.5}, "error": ""},
        {"model": "blend(popularity,als)", "params": {"popularity": 0.25, "als": 0.75}, "error": ""},
    ]
    chosen.write_text(json.dumps({"rows": rows}))
    options = ("--models", "popularity", "--blend", "popularity,als", "--chosen", str(chosen), "--defaults")
    found = by_model(measured("adjacency", *options)[0])
    assert found["popularity"]["params"] == {"half_life_days": 2.5} and found["popularity"]["search"] is None
    assert found["blend(popularity,als)"]["params"] == {"popularity": 0.25, "als": 0.75}


@pytest.mark.parametrize("tune", ["--tune", "--defaults"])
def test_the_test_part_can_be_left_out(measured, tune):
    options = ("--models", "item_knn", "--blend", "item_knn,als", "--no-look-at-test", tune)
    found, output = measured("adjacency", *options)
    assert "validation part only" in output
    for row in found["rows"]:
        assert row["metrics"] == {} and row["users_per_s"] == 0 and not row["error"]
        assert row["validation"]["ndcg@20"] > 0.15


def test_json_describes_the_measurement(measured, files):
    found, _ = measured("sessions", "--models", "popularity", "--seed", "4")
    assert found["format"] == "sessions" and found["k"] == 20 and found["seed"] == 4
    assert found["metrics"] == ["p@20 %", "mrr@20 %"]
    assert found["machine"]["libraries"]["numpy"] == np.__version__ and found["machine"]["cores"]
    assert found["data"]["items"] == BLOCKS * PER_BLOCK and len(found["data"]["fingerprint"]) == 16
    assert found["data"]["requests"] == USERS and found["command"].startswith("python -m benchmarks protocols")


def test_lines_without_an_order_are_recognized(measured):
    found, output = measured("adjacency", "--models", "item_knn")
    assert found["data"]["order"] == "none" and found["data"]["found_order"]["recency"]["low"] <= 0
    assert "order of the lines: none" in output and "half_life_days" not in by_model(found)["item_knn"]["params"]
    given, output = measured("adjacency", "--models", "item_knn", "--order", "time")
    assert given["data"]["order"] == "time" and "order of the lines" not in output
    assert "half_life_days" in by_model(given)["item_knn"]["params"]


def test_a_failed_model_is_reported_and_the_others_are_measured(measured, monkeypatch):
    def broken(interactions, config, content=None):
        raise MemoryError("no room for it")

    monkeypatch.setitem(retrievers(), "als", replace(retrievers()["als"], fit=broken))
    found, output = measured("adjacency", "--models", "als,item_knn", "--blend", "als,item_knn", "--defaults")
    rows = by_model(found)
    assert "no room for it" in rows["als"]["error"] and "als failed" in rows["blend(als,item_knn)"]["error"]
    assert rows["item_knn"]["metrics"]["recall@20"] > 0.2 and "no room for it" in output


@pytest.mark.parametrize(
    ("format", "options", "words"),
    [
        ("adjacency", ("--models", "alss"), "model 'alss' is unknown: expected all or any of popularity, history"),
        ("adjacency", ("--models", "content"), "does not fit --format adjacency: content needs --attributes"),
        ("adjacency", ("--models", "history"), "history returns only items of the history, which this protocol masks"),
        ("adjacency", ("--models", "als", "--blend", "als"), "--blend als: expected two or more different models"),
        ("sessions", ("--validation", "v"), "--format sessions takes --train, --test; --validation belongs to another"),
        ("adjacency", ("--mask", "none"), "--mask belongs to another format"),
        ("sessions", ("--order", "none"), "--order belongs to another format"),
    ],
)
def test_options_that_do_not_fit_are_reported(measured, format, options, words):
    with pytest.raises(ConfigError) as error:
        measured(format, *options)
    assert words in str(error.value)


def test_missing_options_and_missing_files(measured):
    with pytest.raises(ConfigError, match="--format adjacency needs --train and --test"):
        measured("adjacency", how={"adjacency": ()})
    with pytest.raises(HandsellError, match=r"nowhere.txt does not exist: expected a file with lines of `user item"):
        measured("adjacency", how={"adjacency": ("--train", "nowhere.txt", "--test", "test")})


def test_invalid_hyper_parameters(measured, tmp_path):
    chosen = tmp_path / "chosen.json"
    chosen.write_text(json.dumps({"rows": [{"model": "als", "params": {"epochs": 0}, "error": ""}]}))
    with pytest.raises(ConfigError, match="are invalid for als"):
        measured("adjacency", "--models", "als", "--chosen", str(chosen))
    chosen.write_text(json.dumps({"row": []}))
    with pytest.raises(HandsellError, match="expected a file written by --json"):
        measured("adjacency", "--models", "als", "--chosen", str(chosen))
