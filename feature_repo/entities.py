"""Entities of the feature views. All keys are strings."""

from feast import Entity, ValueType

from handsell.features.views import ENTITIES

user = Entity(name="user", join_keys=[ENTITIES["user"]], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=[ENTITIES["item"]], value_type=ValueType.STRING)
creator = Entity(name="creator", join_keys=[ENTITIES["creator"]], value_type=ValueType.STRING)
tag = Entity(name="tag", join_keys=[ENTITIES["tag"]], value_type=ValueType.STRING)
