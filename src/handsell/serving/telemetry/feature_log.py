"""Sampled feature vectors as the ranker saw them, to be compared with point-in-time values by `handsell skew`.

All ranking replicas of a machine write one SQLite file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from handsell.config import Config
from handsell.core.batches import NONE, Candidates, Requests
from handsell.features.matrix import build_matrix, list_features
from handsell.features.served_log import TABLES
from handsell.ranking.stage import LocalRanking

log = logging.getLogger(__name__)

LOGGED_ITEMS = 10  # best ranked items of a sampled request
KEPT_ROWS = 200_000  # older rows are dropped


@dataclass(frozen=True, slots=True)
class Sample:
    """A row of a batch whose vectors are to be logged."""

    row: int
    recommendation_id: str
    user_id: str | None


def is_sampled(recommendation_id: str, share: float) -> bool:
    """Whether an answer's vectors are logged; the same on every replica."""
    return zlib.crc32(recommendation_id.encode()) < share * 2**32


class FeatureLog:
    """Writes the vectors of sampled requests; a failure is logged and never fails the request."""

    def __init__(self, path: Path, bundle: str):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.bundle = bundle
        # opened by the thread that loads a bundle, written by the one that answers requests, never at the same time
        self._db = sqlite3.connect(path, timeout=0.05, isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._db.close).atexit = False  # it goes with its bundle
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(TABLES)

    def record(
        self,
        ranking: LocalRanking,
        requests: Requests,
        found: Candidates,
        ranked: Candidates,
        samples: Sequence[Sample],
    ) -> None:
        """Compute the vectors of the best ranked items again, over all candidates as served, and store them."""
        try:
            rows = [row for sample in samples for row in self._rows(ranking, requests, found, ranked, sample)]
            sql = (
                "INSERT INTO served (recommendation_id, user_id, item_id, time, surface, newest, bundle, names, vector)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            )
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT OR IGNORE INTO names VALUES (?, ?)", self._names(ranking.config, found))
            self._db.executemany(sql, rows)
            self._db.execute("DELETE FROM served WHERE id <= (SELECT max(id) FROM served) - ?", (KEPT_ROWS,))
            self._db.execute("COMMIT")
        except Exception:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            log.exception("served feature vectors were not logged")

    def _names(self, config: Config, found: Candidates) -> tuple[str, str]:
        names = json.dumps(list_features(config, found.sources))
        return hashlib.sha256(names.encode()).hexdigest()[:16], names

    def _rows(self, ranking: LocalRanking, requests: Requests, found: Candidates, ranked: Candidates, sample: Sample):
        one = slice(sample.row, sample.row + 1)
        items = ranked.item[sample.row, :LOGGED_ITEMS]
        items = items[items != NONE]
        pick = np.array([np.flatnonzero(found.item[sample.row] == item)[0] for item in items], np.int64)
        x = build_matrix(
            requests.take(one), found.take(one), ranking.items, ranking.snapshot, ranking.config, pick[None]
        )[0]
        time, surface = int(requests.time[sample.row]), int(requests.surface[sample.row])
        newest = int(requests.history.time[sample.row].max(initial=0))
        key, _ = self._names(ranking.config, found)
        for item_id, vector in zip(ranking.snapshot.items.ids(items), x.astype("<f4"), strict=True):
            yield (
                sample.recommendation_id, sample.user_id, item_id, time, surface, newest, self.bundle, key,
                vector.tobytes(),
            )  # fmt: skip

    def close(self) -> None:
        self._db.close()


@dataclass(frozen=True)
class LoggedRanking(LocalRanking):
    """Ranking that logs the feature vectors of sampled requests."""

    log: FeatureLog

    @classmethod
    def of(cls, ranking: LocalRanking, log: FeatureLog) -> LoggedRanking:
        return cls(**{f.name: getattr(ranking, f.name) for f in fields(ranking)}, log=log)

    async def rank(
        self, requests: Requests, candidates: Candidates, k: int, samples: Sequence[Sample] = ()
    ) -> Candidates:
        ranked = await super().rank(requests, candidates, k)
        if samples:
            self.log.record(self, requests, candidates, ranked, samples)
        return ranked
