"""The page of all endpoints with their fields, from the OpenAPI document of the service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

from fastapi import FastAPI

import handsell
from handsell.serving.graph.service import Service
from handsell.serving.http.access.route_scopes import ALL_SCOPES
from handsell.serving.http.api import ROUTE_GROUPS
from handsell.serving.http.compatibility.gorse_api import GORSE_ROUTES

OPENING = """\
# All endpoints

From the OpenAPI document, which a running service answers at `/openapi.json`. [The HTTP API by example](api.md)
explains the endpoints; on the page `/docs` of the service you can call them.
"""
Schema = Mapping[str, Any]


def build_document() -> dict[str, Any]:
    """Return the OpenAPI document of every route, those of the Gorse-compatible API included."""
    app = FastAPI(title="handsell", version=handsell.__version__)
    service = cast(Service, SimpleNamespace(items=None, users=None))
    for routes in (*ROUTE_GROUPS, *GORSE_ROUTES):
        app.include_router(routes(service))
    return app.openapi()


def render_api() -> str:
    """Return the page."""
    document = build_document()
    schemas = document["components"]["schemas"]
    operations = [
        _render_operation(method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    tables = [_render_schema(name, schema) for name, schema in sorted(schemas.items())]
    return "\n".join([OPENING, *operations, "## Objects\n", *tables])


def _render_operation(method: str, path: str, operation: Schema) -> str:
    lines = [f"## {method} {path}\n", f"{_join(operation.get('description') or operation['summary'])}\n"]
    rows = [
        f"| `{one['name']}` | {one['in']} | {_show_type(one['schema'])} | {_describe(one['schema'], one)} |"
        for one in operation.get("parameters", ())
    ]
    if rows:
        lines += ["| parameter | in | type | meaning |", "|---|---|---|---|", *rows, ""]
    bodies = [_show_type(one["schema"]) for one in operation.get("requestBody", {}).get("content", {}).values()]
    lines += [f"Body: {', '.join(bodies)}\n"] if bodies else []
    answers = (f"{status} {_show_answer(one)}".strip() for status, one in operation["responses"].items())
    scope = ALL_SCOPES.get(path)
    needed = f"Scope of the [key](api.md#keys): `{scope}`\n" if scope else "No key is needed.\n"
    switch = ["Answered with `serving.gorse_api = true` ([Gorse's API](migration.md#gorses-api)).\n"]
    return "\n".join(
        [*lines, f"Answers: {' · '.join(answers)}\n", needed, *(switch if path.startswith("/api/") else ())]
    )


def _show_answer(answer: Schema) -> str:
    shown = {_show_type(one["schema"]) for one in answer.get("content", {}).values() if one.get("schema")}
    return ", ".join(sorted(shown))


def _render_schema(name: str, schema: Schema) -> str:
    required = schema.get("required", ())
    lines = [f"### {name}\n", f"{_join(schema.get('description', ''))}\n"]
    if "properties" not in schema:
        return "\n".join([*lines, f"{_show_type(schema)}\n"])
    lines += ["| field | type | meaning |", "|---|---|---|"]
    for field, inner in schema["properties"].items():
        mark = " **required**" if field in required else ""
        lines.append(f"| `{field}`{mark} | {_show_type(inner)} | {_describe(inner, inner)} |")
    return "\n".join([*lines, ""])


def _show_type(schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_show_type(one) for one in schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return " · ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_show_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _describe(schema: Schema, holder: Schema) -> str:
    return _join("; ".join(_list_parts(schema, holder))).replace("|", "\\|")


def _list_parts(schema: Schema, holder: Schema) -> Iterator[str]:
    if text := holder.get("description") or schema.get("description"):
        yield text
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    sizes = {"maxLength": "characters", "maxItems": "entries"}
    for one in schema.get("anyOf", [schema]):
        yield from (f"{sign} {one[key]:g}" for key, sign in signs.items() if key in one)
        yield from (f"at most {one[key]} {unit}" for key, unit in sizes.items() if key in one)
    if schema.get("default") not in (None, [], {}):
        yield f"default `{schema['default']}`"


def _join(text: str) -> str:
    return " ".join(text.split())
