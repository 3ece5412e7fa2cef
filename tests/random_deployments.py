"""Small deployments drawn by a seeded generator: a sound shop, and up to three changes to its config and tables.

Each change says whether a deployment with it is still sound. `run_steps` runs the data and features steps, and what
training and serving need of them, in this process.
"""

from __future__ import annotations

import contextlib
import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config, load_config
from handsell.core.paths import Layout
from handsell.data.interactions import Interactions
from handsell.doctor.catalog_preview import build_new_user_requests
from handsell.eligibility.mask import Eligibility
from handsell.jobs.features import feature_tables
from handsell.jobs.ingest import ingest
from handsell.jobs.train import windows
from handsell.jobs.train.requests import read_requests
from handsell.jobs.train.windows import CatalogSizes
from handsell.reranking.rules.reading import read_rules
from handsell.reranking.rules.ruleset import RuleSet
from handsell.retrieval.models.popularity import PopularityConfig, fit_popularity

DAY = 86_400
SOUND, BROKEN, EITHER = "sound", "broken", "either"
Rows = list[dict[str, Any]]


@dataclass
class Draft:
    """A deployment before it is written: its config and the rows of its tables."""

    rng: np.random.Generator
    toml: dict[str, Any]
    events: Rows
    items: Rows
    users: Rows
    rules: str = ""
    files: dict[str, str] = field(default_factory=lambda: {"events": "csv", "items": "csv", "users": "csv"})
    changes: list[str] = field(default_factory=list)
    verdict: str = SOUND

    def some(self, rows: Rows, share: float = 0.1) -> Rows:
        """Draw at least one row."""
        n = max(1, int(share * len(rows)))
        return [rows[k] for k in self.rng.choice(len(rows), min(n, len(rows)), replace=False)] if rows else []

    def put(self, rows: Rows, column: str, value: Any) -> None:
        """Set a column of rows; `value` may be a function of the row's place."""
        for k, row in enumerate(rows):
            row[column] = value(k) if callable(value) else value

    def section(self, name: str) -> dict[str, Any]:
        return self.toml.setdefault(name, {})


Change = Callable[[Draft], None]
CHANGES: dict[str, tuple[Change, str]] = {}


def change(verdict: str) -> Callable[[Change], Change]:
    """Register a change and what it makes of a sound deployment."""

    def register(function: Change) -> Change:
        CHANGES[function.__name__] = (function, verdict)
        return function

    return register


def draw_deployment(seed: int, folder: Path) -> tuple[Config, Draft]:
    """Write the deployment of a seed to a folder and load its config; raises HandsellError as `load_config` does."""
    rng = np.random.default_rng(seed)
    draft = draw_sound_shop(rng)
    names = list(CHANGES)
    for name in rng.choice(len(names), rng.integers(0, 4), replace=False) if seed % 5 else []:
        function, verdict = CHANGES[names[name]]
        function(draft)
        draft.changes.append(names[name])
        worst = max((SOUND, EITHER, BROKEN).index(one) for one in (draft.verdict, verdict))
        draft.verdict = (SOUND, EITHER, BROKEN)[worst]
    if len(draft.changes) > 1 and draft.verdict != SOUND:
        draft.verdict = EITHER  # one change may undo another
    return write_draft(draft, folder), draft


def draw_sound_shop(rng: np.random.Generator) -> Draft:
    """Draw a shop with all tables that ends at this time or, with the clock of the data, long ago."""
    wall = bool(rng.random() < 0.5)
    end = time.time() - 3_600 if wall else 1_767_225_600
    users, items, n = int(rng.integers(20, 40)), int(rng.integers(30, 60)), int(rng.integers(500, 700))
    at = np.sort(end - rng.random(n) * 14 * DAY)
    events = [
        {"user_id": f"u{rng.integers(users)}", "item_id": f"i{int(rng.random() ** 2 * items)}", "time": int(at[k]),
         "type": str(rng.choice(["view", "view", "cart", "impression"])), "value": float(rng.integers(1, 6))}
        for k in range(n)
    ]  # fmt: skip
    described = [
        {"item_id": f"i{k}", "title": f"Thing {k}", "creators": f"c{k % 7}", "tags": f"t{k % 5}|t{k % 3}",
         "price": round(float(rng.random() * 90), 2), "material": str(rng.choice(["oak", "wool"])), "new": bool(k % 2)}
        for k in range(items)
    ]  # fmt: skip
    people = [{"user_id": f"u{k}", "age": int(rng.integers(18, 80)), "country": f"C{k % 3}"} for k in range(users)]
    toml: dict[str, Any] = {
        "name": "drawn",
        "data": {"format": "tables", "tables": {name: {"path": ""} for name in ("events", "items", "users")}},
        "events": {"types": {"impression": {"weight": 0.0, "seen": False}, "view": {"weight": 1.0}, "cart": {}}},
        "split": {"ranker_days": 2, "validation_days": 2, "test_days": 2},
        "jobs": {"partitions": 1},
        "surfaces": {"home": {"repeat": "allow"}, "similar": {"repeat": "allow"}},
        "serving": {"clock": "wall" if wall else "data"},
        "features": {"item_columns": ["price", "new"], "user_columns": ["age"], "user_attributes": {"country": "text"}},
    }
    return Draft(rng, toml, events, described, people)


def write_draft(draft: Draft, folder: Path) -> Config:
    folder.mkdir(parents=True, exist_ok=True)
    for name in list(draft.toml["data"].get("tables", {})):
        path = folder / f"{name}.{draft.files[name]}"
        draft.toml["data"]["tables"][name]["path"] = draft.toml["data"]["tables"][name]["path"] or path.name
        _write_rows(getattr(draft, name), path)
    if draft.rules:
        (folder / "rules.toml").write_text(draft.rules)
    text = "".join(f"{key} = {_inline(value)}\n" for key, value in draft.toml.items())
    (folder / "drawn.toml").write_text(text)
    return load_config(folder / "drawn.toml")


def _write_rows(rows: Rows, path: Path) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["user_id", "item_id", "time", "type"]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({c: [row.get(c) for row in rows] for c in columns}), path)
        return
    with path.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(columns)
        table.writerows([[_text(row.get(c)) for c in columns] for row in rows])


def _text(value: Any) -> Any:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)


# -- the steps ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def run_in_process(monkeypatch):
    """Run the tasks of the data and features steps one after another in this process, without Ray."""

    def run_tasks(function, arguments, **_):
        return [function(*one) for one in arguments]

    with monkeypatch.context() as patch:
        for module in (ingest, feature_tables, windows):
            patch.setattr(module, "run_tasks", run_tasks)
        for module in (ingest, feature_tables):
            patch.setattr(module, "open_cluster", lambda *_: contextlib.nullcontext())
        yield


def run_steps(config: Config) -> str | None:
    """Run data, features and windows; return what then would keep training or serving from working, or None.

    Raises HandsellError where a step does.
    """
    ingest.prepare(config, lambda _: None)
    keys = windows.write_request_keys(config)
    feature_tables.compute_feature_tables(config, keys)
    layout = Layout(config.state)
    snapshot = Snapshot.load(layout.snapshot)
    eligibility = Eligibility.of(snapshot, config)
    counts = windows.cut_windows(config, config.state / "run")
    for name in windows.REQUEST_WINDOWS:
        if not counts[f"{name}_kept"]:
            return f"no request in the window {name}"
        known = _have_content(snapshot) | _liked_before_windows(config)
        if not _count_eligible(config, name, eligibility, known):
            return f"no liked item that was available and known in the window {name}"
    return _recommend(config, snapshot, eligibility)


def _count_eligible(config: Config, window: str, eligibility: Eligibility, known: np.ndarray) -> int:
    found = read_requests(config.state / "run" / "windows" / f"{window}.parquet")
    row, item = found.acted.row_of_value, found.acted.values
    available = eligibility.find_available(found.time)[row, item]
    return int(((found.gain.values > 0) & available & known[item]).sum())


def _liked_before_windows(config: Config) -> np.ndarray:
    sizes = CatalogSizes.load(Layout(config.state))
    events = Interactions.read(sorted((config.state / "run" / "fit").glob("*.parquet")), sizes.users, sizes.items)
    liked = np.zeros(sizes.items, bool)
    liked[events.item[events.weight > 0]] = True
    return liked


def _recommend(config: Config, snapshot: Snapshot, eligibility: Eligibility) -> str | None:
    sizes = CatalogSizes.load(Layout(config.state))
    events = _read_interactions(config, sizes)
    if config.surfaces["home"].repeat == "exclude":
        seen = np.unique(events.user * np.int64(sizes.items) + events.item)
        if len(seen) >= 0.99 * len(np.unique(events.user)) * len(np.unique(events.item)):
            return "users have seen everything"
    popularity = fit_popularity(events, PopularityConfig())
    meta = json.loads(Layout(config.state).data_meta.read_text())
    now = time.time_ns() // 1_000 if config.serving.clock == "wall" else meta["last_us"] + DAY * 500_000
    for code, (name, surface) in enumerate(config.surfaces.items()):
        if surface.filter and "user." in surface.filter:
            continue
        requests = build_new_user_requests(np.array([code]), now, None)
        allowed = eligibility.mask(requests)
        if config.rules_path is not None:
            rules = RuleSet.of(read_rules(config.rules_path), snapshot, config.surface_names)
            removed = rules.removed(requests, np.arange(len(snapshot), dtype=np.int32)[None])
            allowed = allowed if removed is None else allowed & ~removed
        items, _ = popularity.retrieve(requests, 10, allowed)
        found = (items >= 0).any() or (allowed[0] & _have_content(snapshot)).any()
        if not (found or (surface.filter and allowed.any())):  # filters are backfilled
            return f"nothing to recommend on {name}"
    return None


def _have_content(snapshot: Snapshot) -> np.ndarray:
    titles = np.array([bool(title) for title in snapshot.metadata["title"].to_pylist()])
    return (snapshot.item_tags.lengths > 0) | (snapshot.creator >= 0) | titles


def _read_interactions(config: Config, sizes: CatalogSizes) -> Interactions:
    parts = sorted(Layout(config.state).interactions.glob("part-*.parquet"))
    events = Interactions.read(parts, sizes.users, sizes.items)
    seen = np.array([config.events.types[name].seen for name in config.events.names])
    return events.where(seen[events.type])
