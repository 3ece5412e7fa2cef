"""Benchmarks: command line, ablation variants, tables, and small runs of latency and ann."""

import argparse
import contextlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks import __main__ as command_line
from benchmarks.quality import ablation
from benchmarks.report import write_report
from benchmarks.retrieval import ann, ann_steps
from benchmarks.retrieval import latency as retrieval_latency
from benchmarks.serving import hops, layout_comparison, request_layers
from scipy import sparse

from handsell.config import Config
from handsell.core.errors import ConfigError
from handsell.evaluation.replay_scores import ModelScores, Replay
from handsell.features.matrix import group_features, select_ranker_features

USERS = 60


@pytest.mark.parametrize("name", command_line.BENCHMARKS)
def test_every_benchmark_prints_its_help(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)  # `run` replaces it
    assert command_line.run(name, "--help") == 0
    assert f"python -m benchmarks {name}" in capsys.readouterr().out


def test_every_benchmark_is_listed_with_a_sentence(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--help"])
    assert command_line.main() == 0
    listed = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert dict(listed) == {name: sentence for name, (_, sentence) in command_line.BENCHMARKS.items()}
    assert all(sentence.endswith(".") for _, sentence in listed)


def test_every_quoted_benchmark_exists():
    root = Path(__file__).parents[2]
    pages = [root / "README.md", *(root / "docs").rglob("*.md"), *(root / "deployments").rglob("*.toml")]
    quoted = {name for page in pages for name in re.findall(r"-m benchmarks[ .](\w+)", page.read_text())}
    assert quoted and quoted <= set(command_line.BENCHMARKS)


def config(**sections) -> Config:
    return Config.model_validate({"name": "test", **sections})


def replay(funnel: np.ndarray) -> Replay:
    """All other models score 0.5; the first ten users are cold, and two requests have cold relevant items."""
    same = np.full(USERS, 0.5)
    cold_items = np.where(np.arange(USERS) < 2, same, np.nan)

    def contender(kind: str, depth: int, values: np.ndarray) -> ModelScores:
        scores = {"ndcg@10": values}
        for part, of in (("", values), ("warm_item_", values), ("cold_item_", cold_items)):
            scores |= {f"{part}recall@10": of, f"{part}recall@{depth}": of}
        return ModelScores(kind, depth, scores, np.zeros((USERS, 10), np.int32), {})

    contenders = {
        "als": contender("retriever", 1000, same - 0.1), "item_knn": contender("retriever", 1000, same - 0.2),
        "blend": contender("blend", 150, same), "ranker": contender("ranker", 50, same),
        "funnel": contender("funnel", 10, funnel),
    }  # fmt: skip
    cold = np.arange(USERS) < 10
    segments = {"cold users (no history)": cold, "warm users": ~cold}
    return Replay(np.arange(USERS, dtype=np.int32), contenders, {}, segments)


def test_each_source_and_each_feature_group_is_removed_once():
    whole = config()
    sources = whole.retrieval.enabled
    groups = group_features(whole, sources)
    found = ablation.build_variants(whole, ablation.KINDS)
    assert [v.removed for v in found] == [*sources, *groups]
    for variant in found[: len(sources)]:
        left = variant.config.retrieval.enabled
        assert left == tuple(name for name in sources if name != variant.removed)
        assert not [f for f in select_ranker_features(variant.config, left) if f.startswith(f"src_{variant.removed}_")]
    for variant in found[len(sources) :]:
        gone = set(select_ranker_features(whole, sources)) - set(select_ranker_features(variant.config, sources))
        assert gone == set(groups[variant.removed])
        assert variant.config.retrieval.enabled == sources


def test_features_that_the_config_removes_stay_removed():
    found = ablation.build_variants(config(ranking={"without": ["user", "src_als_z"]}), ablation.KINDS)
    assert "user" not in [v.removed for v in found if v.kind == "groups"]
    without_als = next(v for v in found if v.removed == "als")
    assert without_als.config.ranking.without == ("user",)  # src_als_z does not exist without als


def test_a_single_source_is_not_removed():
    only = {name: {"enabled": False} for name in ("item_knn", "als", "two_tower", "content")}
    assert ablation.build_variants(config(retrieval=only), ("sources",)) == []


def test_feature_groups_need_a_ranker():
    with pytest.raises(ConfigError, match="--variants sources"):
        ablation.build_variants(config(ranking={"enabled": False}), ablation.KINDS)


@pytest.mark.parametrize("text", ["source", "sources,models", ""])
def test_unknown_variants_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="sources, groups"):
        ablation._parse_kinds(text)


def test_requests_are_limited_to_those_with_user_rows():
    assert ablation.limit_requests(config(), 100).split.max_requests == 100
    assert ablation.limit_requests(config(), 10**6).split.max_requests == config().split.max_requests


def test_the_first_table_separates_users_and_items():
    rows = {row["of"]: row for row in ablation.build_segment_rows(replay(np.where(np.arange(USERS) < 10, 0.1, 0.7)))}
    assert list(rows) == ["all requests", "cold users (no history)", "warm users", "warm items", "cold items"]
    assert rows["all requests"]["funnel"] == pytest.approx(0.6) and rows["warm users"]["funnel"] == pytest.approx(0.7)
    assert rows["warm users"]["best single"] == pytest.approx(0.4)  # als, not item_knn
    assert rows["cold users (no history)"]["requests"] == 10 and rows["cold items"]["requests"] == 2
    assert rows["cold items"]["union recall@150"] == pytest.approx(0.5)


def test_differences_are_paired_and_have_an_outcome(tmp_path):
    rng = np.random.default_rng(0)
    ours = rng.random(USERS)
    found = {"without als": replay(ours - 0.05), "without user features": replay(ours + rng.normal(0, 0.2, USERS))}
    whole, worse, noise = ablation.build_difference_rows(replay(ours), found)
    assert whole["difference"] is None and whole["ndcg@10"] == pytest.approx(ours.mean())
    assert worse["outcome"] == "loses" and worse["low"] == pytest.approx(-0.05) == pytest.approx(worse["high"])
    assert noise["outcome"] == "undecided" and noise["low"] < 0 < noise["high"]
    path = write_report(
        "ablation",
        [whole, worse, noise],
        {},
        tmp_path / "f.json",
        {"funnel": ablation.build_segment_rows(replay(ours))},
    )
    written = json.loads(path.read_text())
    assert len(written["rows"]) == 3 and len(written["funnel"]) == 5


def test_share_of_items_in_common():
    tags = sparse.csr_matrix(np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.float32))
    items, three = np.array([[1, 2], [3, -1]]), np.array([[0, 0, 3], [2, 1, 0]])
    assert retrieval_latency.share_in_common(items, three, tags) == pytest.approx(
        1 / 3
    )  # of 1, 2 and 3 only 2 shares a tag
    assert retrieval_latency.share_in_common(items, three, sparse.csr_matrix((4, 0))) is None
    assert retrieval_latency.share_in_common(np.full((2, 2), -1), three, tags) is None


def test_latency_runs_on_lines(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(1)
    lines = [f"u{u} " + " ".join(map(str, rng.choice(50, 12, replace=False))) for u in range(80)]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    (tmp_path / "tags.json").write_text(json.dumps({str(item): [f"tag{item % 5}"] for item in range(50)}))
    families = ["popularity", "history", "item_knn", "content", "spectral"]
    options = ["--data", str(tmp_path / "lines.txt"), "--attributes", str(tmp_path / "tags.json"), "--requests", "40"]
    written = tmp_path / "latency.json"
    monkeypatch.setattr(sys, "argv", ["x", *options, "--families", ",".join(families), "--json", str(written)])
    retrieval_latency.main()
    found = json.loads(written.read_text())
    times = found["latency, µs per request"]
    assert [row["family"] for row in times] == [retrieval_latency.FLOOR, *families]
    assert all(0 < row["p50"] <= row["p99"] for row in times)
    answers = {row["family"]: row for row in found["rows"]}
    assert answers["history"]["with a tag of the three"] == answers["content"]["with a tag of the three"] == 1.0
    assert answers["item_knn"]["answered"] == 1.0 and answers["popularity"]["with a creator"] is None
    assert "the first new user liked" in capsys.readouterr().out


def test_item_generation_is_deterministic_and_queries_differ_by_draw():
    source = ann_steps.ClusteredItems(70_000, dim=16, latent=6, clusters=50)
    blocks = dict(source.generate_blocks())
    assert list(blocks) == [0, 65_536] and blocks[65_536].shape == (70_000 - 65_536, 16)
    again = dict(ann_steps.ClusteredItems(70_000, dim=16, latent=6, clusters=50).generate_blocks())
    assert all(np.array_equal(blocks[first], again[first]) for first in blocks)
    assert np.allclose(np.linalg.norm(source.generate_queries(9, 0), axis=1), 1, atol=1e-5)
    assert not np.isin(source.generate_queries(9, 0), source.generate_queries(9, 1)).any()
    assert 3 < source.effective_dimensions() < 7  # noise apart, the items vary in six


def test_eligible_items_do_not_depend_on_the_block():
    whole = ann_steps.build_mask(5_000, 0.3)[0]
    assert np.array_equal(whole[1_000:1_500], ann_steps.draw_eligible(0.3, 1_000, 500))
    assert abs(whole.mean() - 0.3) < 0.02 and ann_steps.build_mask(70_000, 1.0).all()


@pytest.mark.parametrize(("above", "kind"), [(20_000, "ivf"), (5_000, "ivf_pq")])
def test_ann_reports_recall_and_size(monkeypatch, tmp_path, above, kind):
    options = [
        "--items",
        "20000",
        "--dim",
        "16",
        "--latent",
        "6",
        "--k",
        "50",
        "--queries",
        "40",
        "--shares",
        "1",
        "0.5",
    ]
    chosen = ["--flat-below", "1000", "--pq-above", str(above), "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["ann", *options, *chosen, "--json", str(tmp_path / "ann.json")])
    ann.main()
    written = json.loads((tmp_path / "ann.json").read_text())
    assert written["index"]["kind"] == kind and written["index"]["items"] == 20_000
    assert [row["eligible"] for row in written["rows"]] == ["100%", "50%"]
    assert all(row["recall@50"] > 0.93 and row["items returned"] == 50 for row in written["rows"])
    assert written["bytes_per_item_vectors"] == pytest.approx(64, abs=0.1)
    assert written["bytes_per_item_lists"] < (24 if kind == "ivf_pq" else 32)
    assert [path.name for path in tmp_path.iterdir()] == ["ann.json"]  # the files of the run are deleted


def build_points(method: str, *points: str) -> list[str]:
    return [f"call:{method}", *points]


def test_calls_that_overlap_with_another_are_dropped():
    whole = list(hops.PARTS)
    disturbed = [*whole[:3], "routed", *whole[3:]]  # another call of the same processes
    points = (
        build_points("rank", *whole)
        + build_points("candidates", *disturbed)
        + ["sent"]
        + build_points("rerank", *whole)
    )
    records = [(place * 1_000_000, point) for place, point in enumerate(points)]
    assert list(hops.split_calls(records)) == [(stage, [1.0] * len(whole)) for stage in ("ranking", "reranking")]


def test_records_of_all_processes_are_read_in_order_and_within_the_time(tmp_path):
    (tmp_path / "7.txt").write_text("30 sent\n10 call:rank\n")
    (tmp_path / "8.txt").write_text("20 routed\n90 arrived\n")
    assert hops.read_records(tmp_path, 10, 40) == [(10, "call:rank"), (20, "routed"), (30, "sent")]


def test_a_data_set_is_cut_and_trained_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDSELL_HOME", "elsewhere")
    trained, live = [], [None]

    def cut(name, root, folder):
        trained.append(name)
        (folder / "served.toml").write_text('name = "served"\n')

    @contextlib.contextmanager
    def start(folder, work, topology):
        live[0] = "b1"
        trained.append(topology)
        yield

    monkeypatch.setattr(layout_comparison, "write_tables", cut)
    monkeypatch.setattr(layout_comparison, "start_service", start)
    monkeypatch.setattr(layout_comparison, "open_bundles", lambda config: SimpleNamespace(live=lambda: live[0]))
    for _ in range(2):
        config = layout_comparison.prepare_set("ml-100k", tmp_path)
        assert config.source == tmp_path / "served.toml" and config.state == tmp_path / "home" / "served"
    assert trained == ["ml-100k", "fused"]


def test_ratios_are_those_to_the_empty_application_of_the_run():
    empty, found = {"per_second": 6_000.0, "p50": 0.25}, {"per_second": 600.0, "p50": 4.0}
    row = layout_comparison.build_ratio_row("fused, haproxy", 32, found, empty)
    assert row == {"layout": "fused, haproxy", "c": "32", "throughput ×": 0.1, "p50 ×": 16.0}


def test_the_layers_of_a_request_add_up():
    took = {"in service": 9.0, "in bundle": 7.0, "reading the user": 2.0, "stages": 4.0}
    layers = request_layers.split(took, 10.0)
    assert tuple(layers) == request_layers.LAYERS and layers["HTTP"] == 1.0 and layers["batch"] == 1.0
    assert sum(layers.values()) == 2 * layers["whole request"]
