"""Keys of a Serve document that Serve would silently ignore."""

from __future__ import annotations

from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

PLAIN = ("args", "runtime_env", "user_config")  # any keys


def unknown_keys(value, models=(ServeDeploySchema,), path="") -> list[str]:
    """Keys of a document that none of the pydantic models of that place has."""
    if isinstance(value, list):
        return [k for i, entry in enumerate(value) for k in unknown_keys(entry, models, f"{path}[{i}]")]
    if not isinstance(value, dict) or not models:
        return []
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    found = [f"{path}.{key}" for key in value if key not in fields]
    for key, inner in value.items():
        if key in fields and key not in PLAIN:
            found += unknown_keys(inner, models_in(fields[key].annotation), f"{path}.{key}")
    return found


def models_in(annotation) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in models_in(part)]
