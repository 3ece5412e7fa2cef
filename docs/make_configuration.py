"""Writes docs/configuration.md from the config models: `python docs/make_configuration.py`. A test compares."""

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

One TOML file per deployment ([examples](../deployments/configs)); every section is the whole configuration of one
component. A key that is not listed here is an error, not a silent nothing. `<name>` is yours to choose.
Three environment variables stand above the file: `HANDSELL_DATA` (folder of the source data, what `DATA=` and
`--data` set), `HANDSELL_HOME` (folder of all state; default `.handsell` beside `feature_repo`) and
`HANDSELL_CONFIG` (the config that the stock `feast` command works on).
"""


def page() -> str:
    """The whole document."""
    parts = [OPENING]
    for section, model, default in sections("", Config, None):
        parts.append(_section(section, model, default))
    return "\n".join(parts)


def sections(
    path: str, model: type[Section], default: Section | None
) -> Iterator[tuple[str, type[Section], Section | None]]:
    """(dotted path, model, its default or None) of a section and all below it, in the order of the models."""
    yield path, model, default
    if model is RetrievalConfig:
        for name, plugin in retrievers().items():
            yield f"{path}.{name}", plugin.config, plugin.config()
        return
    for name, field in model.model_fields.items():
        inner, named = section_of(field.annotation)
        if inner is not None:
            below = None if named else default_of(name, field, default)
            yield from sections(f"{path}.{name}".lstrip(".") + (".<name>" if named else ""), inner, below)


def section_of(annotation: Any) -> tuple[type[Section] | None, bool]:
    """The section that an annotation holds, if any, and whether it is a table of named ones."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    named = get_origin(annotation) is dict
    for argument in get_args(annotation)[1 if named else 0 :]:
        if (found := section_of(argument)[0]) is not None:
            return found, named
    return None, False


def default_of(name: str, field: FieldInfo, section: Section | None) -> Any:
    """As the enclosing section's default has it (sources differ in k), else as the model has it."""
    if section is not None:
        return getattr(section, name)
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _section(path: str, model: type[Section], default: Section | None) -> str:
    doc = inspect.cleandoc(vars(model).get("__doc__") or "")
    lines = [f"## [{path}]" if path else "## Top level", *([doc] if doc else []), ""]
    lines += ["| key | default | what it is |", "|---|---|---|"]
    rows = 0
    for name, field in model.model_fields.items():
        inner, named = section_of(field.annotation)
        if inner is not None and (not named or field.json_schema_extra) and not field.description:
            continue  # a plain section: it has a heading of its own
        value = "**required**" if field.is_required() else _shown(default_of(name, field, default))
        lines.append(f"| `{name}` | {_cell(value)} | {_cell(_text(field))} |")
        rows += 1
    return "\n".join(lines if rows else lines[:-2]) + "\n"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"`{name}`" for name in value) or "none"
    if isinstance(value, (tuple, list)):
        value = list(value)
    return f"`{json.dumps(value)}`"


def _text(field: FieldInfo) -> str:
    """Description, what is allowed, and the range."""
    choices = " · ".join(f"`{choice}`" for choice in _choices(field.annotation))
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "pattern": "matches"}
    limits = [f"{signs[k]} {v}" for m in field.metadata for k in signs if (v := getattr(m, k, None)) is not None]
    said = [field.description or "", choices, ", ".join(limits)]
    return "; ".join(part for part in said if part)


def _cell(text: str) -> str:
    """`|` would end the cell."""
    return text.replace("|", "\\|")


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(choice for argument in get_args(annotation) for choice in _choices(argument))
    return ()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
