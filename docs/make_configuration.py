"""Write docs/configuration.md from the config models: `python docs/make_configuration.py`. A test compares the two."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from handsell.config import Config, RetrievalConfig
from handsell.core.section import Section
from handsell.retrieval.config import retrievers

PAGE = Path(__file__).with_name("configuration.md")
OPENING = """\
# Configuration
<!-- written by docs/make_configuration.py from the config classes: change the descriptions there -->

Each deployment has one TOML file ([examples](../deployments/configs)); each section configures one component. A key
that is not listed here is an error. `<name>` is a name of your choice.

Environment variables: `HANDSELL_DATA` (folder of the source data; set by `DATA=` and `--data`, overrides `data.path`),
`HANDSELL_HOME` (folder of all state; by default `.handsell` next to `feature_repo`), `HANDSELL_STORAGE` (overrides
`storage.uri`), `HANDSELL_CONFIG` (the config that the `feast` command uses) and `HANDSELL_KERNELS` (`off`: compute
with NumPy instead of the compiled kernels).
"""


def render_page() -> str:
    """Return the whole document."""
    parts = [OPENING]
    for section, model, default in sections("", Config, None):
        parts.append(_render_section(section, model, default))
    return "\n".join(parts)


def sections(
    path: str, model: type[Section], default: Section | None
) -> Iterator[tuple[str, type[Section], Section | None]]:
    """Yield (dotted path, model, default or None) of a section and all sections in it, in the order of the models."""
    yield path, model, default
    if model is RetrievalConfig:
        for name, plugin in retrievers().items():
            yield f"{path}.{name}", plugin.config, plugin.config()
        return
    for name, field in model.model_fields.items():
        inner, named = find_section(field.annotation)
        if inner is not None:
            below = None if named else find_default(name, field, default)
            yield from sections(f"{path}.{name}".lstrip(".") + (".<name>" if named else ""), inner, below)


def find_section(annotation: Any) -> tuple[type[Section] | None, bool]:
    """Return the section class in an annotation, if any, and whether the annotation is a table of named sections."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    named = get_origin(annotation) is dict
    for argument in get_args(annotation)[1 if named else 0 :]:
        if (found := find_section(argument)[0]) is not None:
            return found, named
    return None, False


def find_default(name: str, field: FieldInfo, section: Section | None) -> Any:
    """Return the default of a field: that of its section's default if there is one, otherwise that of the model."""
    if section is not None:
        return getattr(section, name)
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _render_section(path: str, model: type[Section], default: Section | None) -> str:
    doc = inspect.cleandoc(vars(model).get("__doc__") or "")
    lines = [f"## [{path}]" if path else "## Top level", *([doc] if doc else []), ""]
    lines += ["| key | default | meaning |", "|---|---|---|"]
    rows = 0
    for name, field in model.model_fields.items():
        inner, named = find_section(field.annotation)
        if inner is not None and (not named or field.json_schema_extra) and not field.description:
            continue  # a section, which has its own heading
        value = "**required**" if field.is_required() else _format_default(find_default(name, field, default))
        lines.append(f"| `{name}` | {_escape(value)} | {_escape(_describe(field))} |")
        rows += 1
    return "\n".join(lines if rows else lines[:-2]) + "\n"


def _format_default(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"`{name}`" for name in value) or "none"
    if isinstance(value, (tuple, list)):
        value = list(value)
    return f"`{json.dumps(value)}`"


def _describe(field: FieldInfo) -> str:
    """Return description, allowed values and range of a field."""
    choices = " · ".join(f"`{choice}`" for choice in _choices(field.annotation))
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "pattern": "matches"}
    limits = [f"{signs[k]} {v}" for m in field.metadata for k in signs if (v := getattr(m, k, None)) is not None]
    parts = [field.description or "", choices, ", ".join(limits)]
    return "; ".join(part for part in parts if part)


def _escape(text: str) -> str:
    """Escape `|`, which would end a table cell."""
    return text.replace("|", "\\|")


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(choice for argument in get_args(annotation) for choice in _choices(argument))
    return ()


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
    print(f"wrote {PAGE}")
