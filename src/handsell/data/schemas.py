"""Canonical Arrow schemas of events, items and users, written by all readers.

Extra columns of items and users follow the canonical ones.
"""

from __future__ import annotations

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")
STRINGS = pa.list_(pa.string())
ID_CHARACTERS = 256  # longest id of a user or item

EVENTS = pa.schema(
    [
        pa.field("event_id", pa.string()),  # tells events apart that are otherwise equal, see event_key.py
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),  # a key of Config.events.types
        pa.field("time", TIME, nullable=False),
        pa.field("value", pa.float32()),  # rating, play time, price …
        pa.field("surface", pa.string()),
        pa.field("recommendation_id", pa.string()),  # links an impression and the events that follow from it
        pa.field("position", pa.int16()),  # 1 = top of the slate
        pa.field("propensity", pa.float32()),  # probability with which the policy showed this item at this position
    ]
)

ITEMS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("creators", STRINGS),  # artists, directors, brands, sellers; the first is the primary one
        pa.field("tags", STRINGS),  # genres, categories, tags
        pa.field("text", pa.string()),  # free text
        pa.field("published_at", TIME),  # not recommended before
        pa.field("expires_at", TIME),  # not recommended from then
        pa.field("available", pa.bool_()),  # null = available
    ]
)

USERS = pa.schema([pa.field("user_id", pa.string(), nullable=False)])
