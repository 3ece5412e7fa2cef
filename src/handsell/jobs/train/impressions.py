"""Items of served slates, from the compacted event store, as further rows of the numbered events."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.data.interactions import NUMBERED
from handsell.data.numbering import look_up
from handsell.events.compacted_files import list_ranges

SURFACE = "home"  # the surface of training requests; slates of e-mail and push may never have been looked at
COLUMNS = ["user_id", "item_id", "time", "position", "propensity", "surface", "recommendation_id"]


def add_served_items(events: pa.Table, config: Config, begin_us: int) -> pa.Table:
    """Return the events of some users with the items of the slates that these users were served from `begin_us` on.

    Both are in schema NUMBERED; the type of a served item is `served_type`. An impression that a client reported for a
    served slate is left out.
    """
    served = _read_served_items(config, np.unique(events["user"].to_numpy()), begin_us)
    if not len(served):
        return events
    reported = np.array([not config.events.types[name].seen for name in config.events.names])[events["type"].to_numpy()]
    known = pc.is_in(events["recommendation_id"], pc.unique(served["recommendation_id"]))
    return pa.concat_tables([events.filter(pc.invert(pc.and_(known, pa.array(reported)))), served])


def served_type(config: Config) -> int:
    """The code of an item that was served, after those of the event types."""
    return len(config.events.names)


def _read_served_items(config: Config, users: np.ndarray, begin_us: int) -> pa.Table:
    """Read the items served to `users` (sorted numbers); items that have no number are left out."""
    layout = Layout(config.state)
    first_day = f"date={np.datetime64(begin_us // DAY_US, 'D')}"
    files = [file.path for one in list_ranges(layout.compacted, "impressions") for file in one.files]
    wanted = [path for path in files if path.split("/")[-2] >= first_day]
    if not wanted:
        return NUMBERED.empty_table()
    people, items = (Vocabulary.load(layout.catalog / name) for name in ("users", "items"))
    return pa.concat_tables([_number(path, layout, config, people, items, users) for path in wanted])


def _number(
    path: str, layout: Layout, config: Config, people: Vocabulary, items: Vocabulary, users: np.ndarray
) -> pa.Table:
    at_home = pc.field("surface") == SURFACE
    rows = pq.read_table(layout.compacted / path, columns=COLUMNS, filters=at_home & pc.field("user_id").is_valid())
    user = look_up(rows["user_id"].combine_chunks(), people)
    item = look_up(rows["item_id"].combine_chunks(), items)
    kept = pa.array(np.isin(user, users) & (item != NONE))
    n = len(rows)
    columns = {
        "user": user,
        "item": item,
        "type": np.full(n, served_type(config), np.int8),
        "time": rows["time"].cast(pa.int64()),
        "weight": np.zeros(n, np.float32),
        **{name: rows[name] for name in ("position", "propensity", "surface", "recommendation_id")},
    }
    return pa.table(columns, schema=NUMBERED).filter(kept)
