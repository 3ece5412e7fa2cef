"""The benchmark of scale: growth of memory, and hashes by which results are compared."""

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.scale.growth import describe_growth
from benchmarks.scale.nodes import hash_tables


def row(events, step, seconds, driver, worker, nodes=1):
    return {
        "events": events, "nodes": nodes, "step": step, "seconds": seconds, "driver MiB": driver,
        "largest worker MiB": worker, "worker": "Map(fit)",
    }  # fmt: skip


def test_the_process_that_grows_fastest_sets_the_limit(monkeypatch):
    monkeypatch.setattr("benchmarks.scale.growth.psutil.virtual_memory", lambda: SimpleNamespace(total=10_000 * 2**20))
    rows = [
        row(5_000_000, "train", 50.0, 410.0, 1_500.0), row(1_000_000, "train", 20.0, 400.0, 500.0),
        row(1_000_000, "data", 10.0, 300.0, 300.0), row(5_000_000, "data", 30.0, 300.0, 300.0),
        row(1_000_000, "apply", 1.0, 300.0, 300.0),
    ]  # fmt: skip
    data, train = describe_growth(rows)
    assert data["step"] == "data" and data["seconds per M"] == 5 and data["memory ends at, M"] is None
    assert (train["limited by"], train["worker MiB per M"], train["driver MiB per M"]) == ("Map(fit)", 250, 2.5)
    assert train["memory ends at, M"] == 5 + (10_000 - 1_500) / 250


def test_one_size_has_no_growth():
    assert describe_growth([row(1_000_000, "data", 1.0, 1.0, 1.0, nodes) for nodes in (1, 2, 4)]) == []


def test_the_hash_of_tables_depends_on_rows_and_not_on_compression(tmp_path):
    table = pa.table({"user": [1, 2, 3], "name": ["a", None, "c"]})
    hashes = []
    for name, written, options in (
        ("plain", table, {"compression": "none"}),
        ("small", table, {"compression": "zstd", "row_group_size": 2}),
        ("other", table.slice(0, 2), {}),
        ("order", table.take([1, 0, 2]), {}),
    ):
        (tmp_path / name).mkdir()
        pq.write_table(written, tmp_path / name / "part-0.parquet", **options)
        hashes.append(hash_tables(tmp_path / name))
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3
