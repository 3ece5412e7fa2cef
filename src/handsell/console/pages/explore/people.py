"""Find a person by the beginning of an id."""

from __future__ import annotations

from contextlib import closing

import pyarrow as pa
import pyarrow.compute as pc

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.errors import DataError, HandsellError
from handsell.core.paths import Layout
from handsell.events.store.opening import open_reader

MOST_FOUND = 12
RECENT = 500  # events that are read to find who was active lately


def find_people(config: Config, text: str) -> list[str]:
    """Return ids that begin with a text: those of the latest events first, then those that training knows."""
    found = [one for one in list_recent_people(config) if one.startswith(text)]
    if len(found) < MOST_FOUND:
        found += list_known_people(config, text)
    return list(dict.fromkeys(found))[:MOST_FOUND]


def list_recent_people(config: Config) -> list[str]:
    """Return the people of the latest events, the latest first; none where the event store does not answer."""
    try:
        with closing(open_reader(config)) as reader:
            columns = reader.scan(max(0, reader.last_offset() - RECENT), RECENT)
    except HandsellError:
        return []
    return list(dict.fromkeys(str(one) for one in reversed(list(columns.get("user_id", ()))) if one))


def list_known_people(config: Config, text: str) -> list[str]:
    """Return ids of the catalog that begin with a text, in the order in which they came."""
    try:
        texts = Vocabulary.load(Layout(config.state).catalog / "users").texts
    except DataError:
        return []
    if not text:
        return texts.slice(0, MOST_FOUND).to_pylist()
    matching = pc.indices_nonzero(pc.starts_with(texts, text)).slice(0, MOST_FOUND)
    return texts.take(matching.cast(pa.int64())).to_pylist()
