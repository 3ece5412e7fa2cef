"""Cut the numbered log into windows, one Ray task per part: fit data, and requests with what followed."""

from __future__ import annotations

import json
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
from handsell.config import Config, SplitConfig
from handsell.core.batches import Ragged
from handsell.core.errors import TrainingError
from handsell.core.offsets import offsets_from_counts
from handsell.core.paths import Layout
from handsell.data import splits
from handsell.data.interactions import Interactions
from handsell.data.return_times import ReturnTimes, has_drawn_pause
from handsell.data.splits import WindowRequests
from handsell.jobs.cluster import spread

REQUESTS = pa.schema(
    [
        pa.field("user", pa.int32()),
        pa.field("time", pa.int64()),
        pa.field("away", pa.int64()),
        *(pa.field(name, pa.list_(pa.from_numpy_dtype(kind))) for name, kind in WindowRequests.RAGGED.items()),
    ]
)
REQUEST_WINDOWS = splits.WINDOWS[1:]
SERVED = "served"  # the test window as a service meets it: every user asked once, at one moment
AT_ONCE = "_at_once"  # ends the name of other windows' requests of that kind
ASKED = (*REQUEST_WINDOWS, SERVED)
DRAWN = ("ranker", "validation")  # windows whose requests are also asked after drawn pauses
SERVED_REQUESTS = 1_000  # asked again after each of several pauses


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the numbered log is."""

    users: int
    items: int

    @classmethod
    def of(cls, layout: Layout) -> Sizes:
        return cls(len(Vocabulary.load(layout.catalog / "users")), len(Vocabulary.load(layout.catalog / "items")))


def cut(config: Config, run: Path) -> dict[str, int]:
    """Write run/fit/*.parquet, run/all/*.parquet and run/windows/<window>.parquet; returns counts.

    `fit` holds the interactions of the retrieval window, `all` those of every window, both without
    impressions. Raises TrainingError when there is nothing to learn from or nothing to test on.
    """
    layout = Layout(config.state)
    parts = sorted(layout.interactions.glob("part-*.parquet"))
    if not parts:
        raise TrainingError(f"no interactions in {layout.interactions}: run `handsell data {config.source}` first")
    meta = json.loads(layout.data_meta.read_text())
    bounds = splits.Bounds.of(config.split, meta["last_us"])
    sizes = Sizes.of(layout)
    for folder in ("fit", "all", "windows"):
        (run / folder).mkdir(parents=True, exist_ok=True)
    end_us = meta["last_us"] + 1
    cuts = spread(_cut_part, [(part, config, bounds, sizes, run, end_us) for part in parts], cpus=0.5)
    counts, returns = [c for c, _ in cuts], reduce(add, [r for _, r in cuts])
    totals = {key: sum(c[key] for c in counts) for key in counts[0]}
    if totals["fit"] == 0:
        raise TrainingError(
            "the retrieval window is empty: all events fall into the ranker, validation and test windows. "
            "Shorten split.ranker_days, validation_days and test_days, or use split.kind = 'leave_last_k'."
        )
    for name in ASKED:
        most = min(config.split.max_requests, SERVED_REQUESTS) if name == SERVED else config.split.max_requests
        totals[f"{name}_kept"] = _gather(run, name, most, totals, returns)
    return totals


def _cut_part(
    part: Path, config: Config, bounds: splits.Bounds, sizes: Sizes, run: Path, end_us: int
) -> tuple[dict[str, int], ReturnTimes]:
    table = pq.read_table(part)
    events = Interactions.from_table(table, sizes.users, sizes.items)
    order = np.lexsort((table["time"].to_numpy(), table["user"].to_numpy()))
    position = pc.fill_null(table["position"], 0).to_numpy()[order]
    propensity = pc.fill_null(table["propensity"], np.nan).to_numpy()[order]
    seen = np.array([config.events.types[name].seen for name in config.events.names])
    acted = seen[events.type]
    window = splits.assign_windows(events, acted, config.split, bounds)
    gap_us = int(config.events.session_gap_minutes * 60_000_000)
    stretch = splits.number_stretches(events, acted, window, config.split, gap_us)
    write_interactions(events.where(acted & (window == splits.RETRIEVAL)), run / "fit" / part.name)
    write_interactions(events.where(acted), run / "all" / part.name)
    counts = {"fit": int((acted & (window == splits.RETRIEVAL)).sum()), "all": int(acted.sum())}
    slate, begins = (position, propensity), (bounds.ranker, bounds.validation, bounds.test)
    for name, (which, at_once) in _kinds(config.split).items():
        if at_once:
            begin_us = begins[which - 1]
            found = splits.build_simultaneous_requests(
                events, acted, slate, window, config.split, begin_us, end_us, which
            )
        else:
            found = splits.build_window_requests(events, acted, slate, window, stretch, which)
        folder = run / "windows" / name
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(requests_table(found), folder / part.name)
        counts[name] = len(found)
    return counts, ReturnTimes.of(events.where(acted), gap_us, end_us)


def _kinds(split: SplitConfig) -> dict[str, tuple[int, bool]]:
    """Name of a file of requests → its window, and whether all users are asked at one moment.

    With windows in time, models are chosen and taught by both kinds: users who came back, and everybody at once, of
    whom all is wanted that they do until the window ends. Windows of each user's last events hold one kind alone.
    """
    kinds = {name: (splits.WINDOWS.index(name), False) for name in REQUEST_WINDOWS}
    kinds[SERVED] = (splits.TEST, True)
    if split.kind == "by_time":
        kinds |= {name + AT_ONCE: (splits.WINDOWS.index(name), True) for name in DRAWN}
    return kinds


def request_keys(config: Config) -> Path:
    """Parquet of the (user, time) of every request that training will ask for, under the state folder.

    The features job computes rows for them; cutting is cheap and gives the same requests as training's.
    """
    folder = config.state / "requests"
    shutil.rmtree(folder, ignore_errors=True)
    cut(config, folder)
    keys = [pq.read_table(folder / "windows" / f"{name}.parquet", columns=["user", "time"]) for name in ASKED]
    shutil.rmtree(folder / "fit")
    shutil.rmtree(folder / "all")
    pq.write_table(pa.concat_tables(keys), folder / "keys.parquet")
    return folder / "keys.parquet"


def _gather(run: Path, name: str, most: int, found: dict[str, int], returns: ReturnTimes) -> int:
    """One file per window with at most about `most` requests, oldest first, so that chunks share days.

    Both kinds of requests have an equal part in it. Half of the requests that models are chosen and taught by are
    asked after a drawn pause.
    """
    kinds = [kind for kind in (name, name + AT_ONCE) if kind in found]
    kept = []
    for kind in kinds:
        share = most / len(kinds) / max(found[kind], 1)
        parts = sorted((run / "windows" / kind).glob("*.parquet"))
        kept += [splits.sample(read_requests(part), share) for part in parts]
    if name in DRAWN:
        kept = [_ask_later(requests, returns) for requests in kept]
    table = pa.concat_tables(map(requests_table, kept)).sort_by([("time", "ascending"), ("user", "ascending")])
    pq.write_table(table, run / "windows" / f"{name}.parquet")
    return table.num_rows


def _ask_later(requests: WindowRequests, returns: ReturnTimes) -> WindowRequests:
    key = requests.user, requests.time
    return replace(requests, away=np.where(has_drawn_pause(*key), returns.draw(*key), splits.AS_LOGGED))


def write_interactions(events: Interactions, path: Path) -> None:
    names = ("user", "item", "type", "time", "weight")
    pq.write_table(pa.table({name: getattr(events, name) for name in names}), path)


def requests_table(found: WindowRequests) -> pa.Table:
    lists = {
        name: pa.ListArray.from_arrays(
            pa.array(getattr(found, name).offsets.astype(np.int32)), pa.array(getattr(found, name).values)
        )
        for name in WindowRequests.RAGGED
    }
    return pa.table({"user": found.user, "time": found.time, "away": found.away, **lists}).cast(REQUESTS)


def read_requests(path: Path, rows: slice = slice(None)) -> WindowRequests:
    """Requests of a window file; `rows` picks some of them."""
    table = pq.read_table(path)
    begin, end, _ = rows.indices(table.num_rows)
    table = table.slice(begin, end - begin)
    ragged = (_ragged(table[name].combine_chunks(), kind) for name, kind in WindowRequests.RAGGED.items())
    return WindowRequests(*(table[name].to_numpy() for name in ("user", "time", "away")), *ragged)


def _ragged(column: pa.ListArray, kind: type) -> Ragged:
    lengths = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    values = column.flatten().to_numpy(zero_copy_only=False).astype(kind)
    return Ragged(values, offsets_from_counts(lengths))
