"""Ranker examples on disk, as Parquet folders by hash of the group, so that each worker reads whole groups."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.core.errors import TrainingError
from handsell.ranking.examples import HISTORY_LABEL, Coverage, Examples

KEYS = ("qid", "item", "label", "weight")  # stored as _qid …, since a feature may have the same name


@dataclass(frozen=True, slots=True)
class RankingExamples:
    """N examples in memory, sorted by group."""

    qid: np.ndarray  # (N,) int64
    item: np.ndarray  # (N,) int32
    label: np.ndarray  # (N,) int8
    weight: np.ndarray  # (N,) float32
    x: np.ndarray  # (N, F) float32
    features: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.qid)


def write_shards(examples: Examples, features: tuple[str, ...], out: Path, part: str, shards: int) -> None:
    """Write examples as out/shard-00000/<part>.parquet …, and their coverage as out/<part>.coverage.json.

    Tasks may write different parts at the same time. An existing part is replaced.
    """
    if examples.x.shape[1] != len(features):
        raise TrainingError(
            f"expected {len(features)} feature columns, got {examples.x.shape[1]}: pass one name per column"
        )
    table = pa.table(
        {
            **{f"_{key}": getattr(examples, key) for key in KEYS},
            **{name: np.ascontiguousarray(examples.x[:, f]) for f, name in enumerate(features)},
        }
    )
    home = examples.qid % shards  # qid is a hash already
    for shard in range(shards):
        folder = _name_shard(out, shard)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.filter(home == shard), folder / f"{part}.parquet", use_dictionary=False)
    about = {name: getattr(examples.coverage, name) for name in Coverage.__dataclass_fields__}
    (out / f"{part}.coverage.json").write_text(json.dumps(about))


def shard_folders(out: Path, worker: int = 0, workers: int = 1) -> list[Path]:
    """Return the shards of `worker`; raises TrainingError where there are fewer shards than workers."""
    folders = sorted(out.glob("shard-*"))
    if len(folders) < workers:
        raise TrainingError(
            f"{out}: expected at least {workers} shards, one per worker, got {len(folders)}: lower ranking.workers, or "
            "write the examples again"
        )
    return folders[worker::workers]


def count_usable_workers(examples: Path, validation: Path, wanted: int) -> int:
    """Return the largest number of workers ≤ `wanted` such that each has examples, and validation examples if any.

    A worker without rows would block the collective. Returns at least 1.
    """
    sizes = [np.array([_count_rows(folder) for folder in shard_folders(out)]) for out in (examples, validation)]
    sizes = [each for each in sizes if each.sum()]
    for workers in range(wanted, 1, -1):
        if all(each[worker::workers].sum() for each in sizes for worker in range(workers)):
            return workers
    return 1


def read_shards(folders: list[Path], features: tuple[str, ...], *, history: bool = False) -> RankingExamples:
    """Read shards, sorted by group, with the rows of HISTORY_LABEL if wanted.

    Raises TrainingError that names missing feature columns.
    """
    parts = [_read(path, features) for folder in folders for path in sorted(folder.glob("*.parquet"))]
    table = pa.concat_tables(parts) if parts else None
    if table is not None and not history:
        table = table.filter(pc.not_equal(table["_label"], HISTORY_LABEL))
    if table is None:
        qid, item, label, weight = (np.zeros(0, kind) for kind in (np.int64, np.int32, np.int8, np.float32))
        return RankingExamples(qid, item, label, weight, np.zeros((0, len(features)), np.float32), features)
    order = np.argsort(table["_qid"].to_numpy(), kind="stable")
    x = np.empty((len(order), len(features)), np.float32)
    for f, name in enumerate(features):
        x[:, f] = table[name].to_numpy()[order]
    qid, item, label, weight = (table[f"_{key}"].to_numpy()[order] for key in KEYS)
    return RankingExamples(qid, item, label, weight, x, features)


def read_coverage(out: Path) -> Coverage:
    """Return the coverage summed over all parts."""
    found = (Coverage(**json.loads(path.read_text())) for path in sorted(out.glob("*.coverage.json")))
    return sum(found, Coverage())


def _name_shard(out: Path, shard: int) -> Path:
    return out / f"shard-{shard:05d}"


def _count_rows(folder: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


def _read(path: Path, features: tuple[str, ...]) -> pa.Table:
    have = set(pq.read_schema(path).names)
    columns = [*(f"_{key}" for key in KEYS), *features]
    missing = [name for name in columns if name not in have]
    if missing:
        raise TrainingError(
            f"{path}: expected {len(columns)} columns, missing {', '.join(missing)}: write the examples again"
        )
    return pq.read_table(path, columns=columns)
