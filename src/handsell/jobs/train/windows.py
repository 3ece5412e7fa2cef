"""Split the numbered interactions into windows: events that retrievers are fitted on, and requests with their outcome.

A run's folder gets fit/ (interactions of the retrieval window), all/ (those of every window), both without
impressions, and windows/<name>.parquet for each name of REQUEST_SETS.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.errors import TrainingError
from handsell.core.json_files import read_json
from handsell.core.paths import Layout
from handsell.core.units import HOUR_US
from handsell.data import splits
from handsell.data.interaction_parts import list_parts, read_part
from handsell.data.interactions import Interactions
from handsell.data.return_times import ReturnTimes, has_drawn_pause
from handsell.data.slate_requests import build_slate_requests
from handsell.data.splits import WindowRequests
from handsell.jobs.cluster import run_tasks
from handsell.jobs.train.impressions import add_served_items, served_type
from handsell.jobs.train.requests import build_requests_table, read_requests

REQUEST_WINDOWS = splits.WINDOWS[1:]
SERVED = "served"  # requests of the test window as a service gets them: one per user, all at the same time
SLATES = "_slates"  # suffix of further requests of a window: one per slate that was shown
SIMULTANEOUS = "_simultaneous"  # suffix of further requests of a window: one per user, all at the same time
REQUEST_SETS = (*REQUEST_WINDOWS, SERVED)
DELAYED = ("ranker", "validation")  # half of their requests come after a drawn pause
MAX_SERVED_REQUESTS = 1_000  # each is evaluated again after each of several pauses


@dataclass(frozen=True, slots=True)
class CatalogSizes:
    """Number of users and of items that have a catalog number."""

    users: int
    items: int

    @classmethod
    def load(cls, layout: Layout) -> CatalogSizes:
        return cls(len(Vocabulary.load(layout.catalog / "users")), len(Vocabulary.load(layout.catalog / "items")))


def cut_windows(config: Config, run: Path) -> dict[str, int]:
    """Write fit/, all/ and windows/ to the folder `run`, with one Ray task per part; return counts by name.

    Raises TrainingError without interactions or with an empty retrieval window.
    """
    layout = Layout(config.state)
    parts = list_parts(layout.interactions)
    if not parts:
        raise TrainingError(f"no interactions in {layout.interactions}: run `handsell data {config.source}` first")
    end_us = read_json(layout.data_meta, f"run `handsell data {config.source}` again")["last_us"] + 1
    sizes = CatalogSizes.load(layout)
    for folder in ("fit", "all", "windows"):
        (run / folder).mkdir(parents=True, exist_ok=True)
    cuts = run_tasks(_split_interactions, [(part, config, sizes, run, end_us) for part in parts], cpus=0.5)
    counts, returns = [c for c, _ in cuts], reduce(add, [r for _, r in cuts])
    totals = {key: sum(c[key] for c in counts) for key in counts[0]}
    if totals["fit"] == 0:
        raise TrainingError(
            "the retrieval window is empty: all events fall into the ranker, validation and test windows. "
            "Shorten split.ranker_days, validation_days and test_days, or use split.kind = 'leave_last_k'."
        )
    for name in REQUEST_SETS:
        most = min(config.split.max_requests, MAX_SERVED_REQUESTS) if name == SERVED else config.split.max_requests
        totals[f"{name}_kept"] = _write_sample(run, name, most, totals, returns)
    return totals


def write_request_keys(config: Config) -> Path:
    """Write the (user, time) of every request of the next training to a Parquet file in the state folder.

    The features job computes a user row for each. Cutting the same data again gives the same requests.
    """
    folder = config.state / "requests"
    shutil.rmtree(folder, ignore_errors=True)
    cut_windows(config, folder)
    keys = [pq.read_table(folder / "windows" / f"{name}.parquet", columns=["user", "time"]) for name in REQUEST_SETS]
    shutil.rmtree(folder / "fit")
    shutil.rmtree(folder / "all")
    pq.write_table(pa.concat_tables(keys), folder / "keys.parquet")
    return folder / "keys.parquet"


def _split_interactions(
    part: Path, config: Config, sizes: CatalogSizes, run: Path, end_us: int
) -> tuple[dict[str, int], ReturnTimes]:
    """Cut one part of the interactions, a Ray task; return its counts and the pauses between its users' sessions."""
    bounds = splits.Bounds.of(config.split, end_us - 1)
    table = add_served_items(read_part(part), config, bounds.ranker if config.split.kind == "by_time" else 0)
    events = Interactions.from_table(table, sizes.users, sizes.items)
    order = np.lexsort((table["time"].to_numpy(), table["user"].to_numpy()))
    position = pc.fill_null(table["position"], 0).to_numpy()[order]
    propensity = pc.fill_null(table["propensity"], np.nan).to_numpy()[order]
    recommendation = _number_recommendations(table["recommendation_id"])[order]
    is_interaction = np.array([*(config.events.types[name].seen for name in config.events.names), False])  # served last
    acted = is_interaction[events.type]
    window = splits.assign_windows(events, acted, config.split, bounds)
    gap_us = config.events.session_gap_us
    stretch = splits.number_stretches(events, acted, window, config.split, gap_us)
    write_interactions(events.where(acted & (window == splits.RETRIEVAL)), run / "fit" / part.name)
    write_interactions(events.where(acted), run / "all" / part.name)
    counts = {"fit": int((acted & (window == splits.RETRIEVAL)).sum()), "all": int(acted.sum())}
    shown = ~acted & (window != splits.RETRIEVAL)
    counts["shown_items"] = int(shown.sum())
    counts["served_items"] = int((shown & (events.type == served_type(config))).sum())
    slate, begins = (position, propensity), (0, bounds.ranker, bounds.validation, bounds.test, end_us)
    for name, (which, kind) in _request_kinds(config).items():
        begin_us = begins[which]
        if kind == SIMULTANEOUS:
            found = splits.build_simultaneous_requests(
                events, acted, slate, window, config.split, begin_us, end_us, which
            )
        elif kind == SLATES:
            outcome_us = int(config.ranking.outcome_hours * HOUR_US)
            found = build_slate_requests(events, acted, slate, recommendation, begin_us, begins[which + 1], outcome_us)
        else:
            found = splits.build_window_requests(events, acted, slate, window, stretch, which)
        folder = run / "windows" / name
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(build_requests_table(found), folder / part.name)
        counts[name] = len(found)
    return counts, ReturnTimes.of(events.where(acted), gap_us, end_us)


def _request_kinds(config: Config) -> dict[str, tuple[int, str]]:
    """Return the kinds of requests by name: their window, and the kind's suffix.

    With windows in time, the ranker and validation windows have several kinds: a request at the start of each session,
    one per user at the start of the window, whose outcome is the whole window, and, if the config says so, one per
    slate. With leave_last_k a window has the first kind alone.
    """
    kinds = {name: (splits.WINDOWS.index(name), "") for name in REQUEST_WINDOWS}
    kinds[SERVED] = (splits.TEST, SIMULTANEOUS)
    if config.split.kind == "by_time":
        more = (SIMULTANEOUS, SLATES) if config.ranking.impressions == "slates" else (SIMULTANEOUS,)
        kinds |= {name + kind: (splits.WINDOWS.index(name), kind) for name in DELAYED for kind in more}
    return kinds


def _number_recommendations(ids: pa.ChunkedArray) -> np.ndarray:
    """Number the distinct recommendation ids (N,) int64, NONE where there is none."""
    codes = ids.combine_chunks().dictionary_encode().indices
    return pc.fill_null(codes, NONE).to_numpy().astype(np.int64)


def _write_sample(run: Path, name: str, most: int, found: dict[str, int], returns: ReturnTimes) -> int:
    """Write one file with at most about `most` requests, oldest first, so that chunks share days; return how many.

    The kinds of requests have equal shares. In the sets of DELAYED, half of the requests get a drawn pause.
    """
    kinds = [kind for kind in (name + SLATES, name, name + SIMULTANEOUS) if kind in found]
    kept = []
    for kind in kinds:
        share = most / len(kinds) / max(found[kind], 1)
        parts = sorted((run / "windows" / kind).glob("*.parquet"))
        kept += [splits.sample(read_requests(part), share) for part in parts]
    if name in DELAYED:
        kept = [_delay_half(requests, returns) for requests in kept]
    table = _drop_repeated(pa.concat_tables(map(build_requests_table, kept)))
    table = table.sort_by([("time", "ascending"), ("user", "ascending")])
    pq.write_table(table, run / "windows" / f"{name}.parquet")
    return table.num_rows


def _drop_repeated(table: pa.Table) -> pa.Table:
    """Keep the first of several requests of a user at one time: a session may begin with a slate."""
    keys = np.stack([table["user"].to_numpy(), table["time"].to_numpy()], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    return table.take(pa.array(np.sort(first)))


def _delay_half(requests: WindowRequests, returns: ReturnTimes) -> WindowRequests:
    key = requests.user, requests.time
    return replace(requests, away=np.where(has_drawn_pause(*key), returns.draw(*key), splits.AS_LOGGED))


def write_interactions(events: Interactions, path: Path) -> None:
    names = ("user", "item", "type", "time", "weight")
    pq.write_table(pa.table({name: getattr(events, name) for name in names}), path)
