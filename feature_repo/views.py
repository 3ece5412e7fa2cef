"""The feature views: handsell's definitions (columns, keys) over its folders of Parquet files."""

import pyarrow as pa
from feast import FeatureView, Field, FileSource
from feast.data_format import ParquetFormat
from feast.types import Array, Bool, Float32, Float64, Int64, String

from deployment import config, layout
from entities import creator, item, tag, user
from handsell.features.views import CREATED, TIMESTAMP, View, build_views, to_duckdb_path

ENTITY = {entity.name: entity for entity in (user, item, creator, tag)}
TYPES = {pa.string(): String, pa.int64(): Int64, pa.float32(): Float32, pa.float64(): Float64, pa.bool_(): Bool}


def feast_type(arrow: pa.DataType):
    return Array(TYPES[arrow.value_type]) if pa.types.is_list(arrow) else TYPES[arrow]


def feature_view(name: str, description: str) -> FeatureView:
    view: View = build_views(config)[name]
    source = FileSource(
        name=f"{name}_source",
        path=to_duckdb_path(layout.features / name),
        file_format=ParquetFormat(),
        timestamp_field=TIMESTAMP,
        created_timestamp_column=CREATED,
    )
    return FeatureView(
        name=name,
        description=description,
        entities=[ENTITY[entity] for entity in view.entities],
        schema=[Field(name=key, dtype=String) for key in view.keys]
        + [Field(name=column, dtype=feast_type(arrow)) for column, arrow in view.columns],
        source=source,
        online=view.online,
    )


user_profile = feature_view("user_profile", "columns of the user table")
user_activity = feature_view("user_activity", "counts and decayed sums of the user's events, by type and sign")
user_history = feature_view("user_history", "the most recent interactions, oldest first")
user_seen = feature_view("user_seen", "items that the user interacted with, for the repeat policy")
user_affinity = feature_view("user_affinity", "the strongest creators and tags, highest weight first")
user_creator = feature_view("user_creator", "affinity of a user to a creator (offline)")
user_tag = feature_view("user_tag", "affinity of a user to a tag (offline)")
item_profile = feature_view("item_profile", "columns of the item table")
item_activity = feature_view("item_activity", "events per item in windows that end with yesterday")
