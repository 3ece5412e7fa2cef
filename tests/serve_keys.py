"""Search for keys in a Serve document that Serve would silently ignore."""

from __future__ import annotations

from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

FREE_FORM = ("args", "runtime_env", "user_config")  # may have any keys


def find_unknown_keys(value, models=(ServeDeploySchema,), path="") -> list[str]:
    """Find the keys that none of the pydantic models at that place declares."""
    if isinstance(value, list):
        return [k for i, entry in enumerate(value) for k in find_unknown_keys(entry, models, f"{path}[{i}]")]
    if not isinstance(value, dict) or not models:
        return []
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    found = [f"{path}.{key}" for key in value if key not in fields]
    for key, inner in value.items():
        if key in fields and key not in FREE_FORM:
            found += find_unknown_keys(inner, find_models(fields[key].annotation), f"{path}.{key}")
    return found


def find_models(annotation) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in find_models(part)]
