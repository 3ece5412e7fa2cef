"""Items and users tables of the world, without hidden parameters."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from handsell.core.offsets import offsets_from_counts
from handsell.data.config import WorldConfig
from handsell.data.schemas import ITEMS, STRINGS, TIME, USERS
from handsell.data.world.catalog import Catalog, build_catalog, stream
from handsell.data.world.listeners import AGE_BANDS, COUNTRIES, build_listeners, n_partitions
from handsell.data.world.names import describe_mood, draw_artist_names, draw_track_titles, list_genres

_EXTRA = (("energy", pa.float32()), ("acousticness", pa.float32()), ("tempo", pa.float32()))
ITEM_SCHEMA = pa.schema([*ITEMS, *_EXTRA, ("year", pa.int32()), ("explicit", pa.bool_())])
USER_SCHEMA = pa.schema([*USERS, ("country", pa.string()), ("age_band", pa.string()), ("joined_at", TIME)])


def format_item_ids(numbers: np.ndarray) -> list[str]:
    return [f"t{n:07d}" for n in numbers.tolist()]


def format_user_ids(numbers: np.ndarray) -> list[str]:
    return [f"u{n:07d}" for n in numbers.tolist()]


def build_items_table(world: WorldConfig) -> pa.Table:
    """Build one row per track in order of release, ITEM_SCHEMA."""
    tracks = build_catalog(world)
    rng = stream(world, "names")
    artists = np.array(draw_artist_names(world.artists, rng), object)[tracks.artist].tolist()
    years = tracks.published.astype("M8[us]").astype("M8[Y]").astype(np.int64) + 1970
    tags = _build_tag_lists(world, tracks)
    names = tags.to_pylist()
    feels = [describe_mood(e, a) for e, a in zip(tracks.energy.tolist(), tracks.acousticness.tolist(), strict=True)]
    columns = {
        "item_id": format_item_ids(np.arange(len(tracks))),
        "title": draw_track_titles(len(tracks), rng),
        "creators": pa.ListArray.from_arrays(np.arange(len(tracks) + 1, dtype=np.int32), pa.array(artists)),
        "tags": tags,
        "text": [f"{', '.join(t)}; {f}; by {a}" for t, f, a in zip(names, feels, artists, strict=True)],
        "published_at": pa.array(tracks.published, TIME),
        "expires_at": pa.nulls(len(tracks), TIME),
        "available": pa.nulls(len(tracks), pa.bool_()),
        "energy": tracks.energy,
        "acousticness": tracks.acousticness,
        "tempo": tracks.tempo,
        "year": years.astype(np.int32),
        "explicit": tracks.explicit,
    }
    return pa.table(columns, schema=ITEM_SCHEMA)


def build_users_table(world: WorldConfig) -> pa.Table:
    """Build one row per user in order of number, USER_SCHEMA."""
    parts = []
    for partition in range(n_partitions(world)):
        people = build_listeners(world, partition)
        columns = {
            "user_id": format_user_ids(people.number),
            "country": np.array(COUNTRIES, object)[people.country],
            "age_band": np.array(AGE_BANDS, object)[people.age_band],
            "joined_at": pa.array(people.joined, TIME),
        }
        parts.append(pa.table(columns, schema=USER_SCHEMA))
    return pa.concat_tables(parts).combine_chunks()


def _build_tag_lists(world: WorldConfig, tracks: Catalog) -> pa.ListArray:
    present = tracks.tags >= 0
    names = pa.array(list_genres(world.tags)).take(pa.array(tracks.tags[present].astype(np.int32)))
    offsets = offsets_from_counts(present.sum(axis=1)).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, names).cast(STRINGS)
