"""Canonical Arrow schemas: what every reader writes and everything later reads.

Extra columns of items and users are kept behind the canonical ones.
"""

from __future__ import annotations

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")
STRINGS = pa.list_(pa.string())

EVENTS = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),  # unique; a second one with the same id is a duplicate
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),  # a key of Config.events.types
        pa.field("time", TIME, nullable=False),
        pa.field("value", pa.float32()),  # rating, play time, price …
        pa.field("surface", pa.string()),
        pa.field("recommendation_id", pa.string()),  # joins an impression and what followed
        pa.field("position", pa.int16()),  # 1 = top of the slate
        pa.field("propensity", pa.float32()),  # chance that the policy showed this item there
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
        pa.field("expires_at", TIME),  # not recommended from then on
        pa.field("available", pa.bool_()),  # null = available
    ]
)

USERS = pa.schema([pa.field("user_id", pa.string(), nullable=False)])
