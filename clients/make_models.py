"""Writes the clients' types and methods from the OpenAPI document: `python clients/make_models.py`. A test compares.

src/handsell/client/answers.py           a TypedDict for each schema of an answer
src/handsell/client/bodies.py            a TypedDict for each schema of a body, and for the query of each GET
src/handsell/client/endpoints.py         a method for each operation in METHODS
src/handsell/client/async_endpoints.py   the same, asynchronous
clients/web/src/models.ts                interfaces of the schemas that a web page needs
"""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from fastapi import FastAPI
from ruff import find_ruff_bin

from handsell.serving.graph.service import Service
from handsell.serving.http.api import ROUTE_GROUPS

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / "src" / "handsell" / "client"
WRITTEN_BY = "written by clients/make_models.py from the OpenAPI document"
METHODS = {  # by method of the client: its operation
    "recommend": ("post", "/v1/recommendations"),
    "similar": ("get", "/v1/similar"),
    "popular": ("get", "/v1/popular"),
    "trending": ("get", "/v1/trending"),
    "rank": ("post", "/v1/rank"),
    "explain": ("get", "/v1/explain"),
    "onboarding": ("post", "/v1/onboarding"),
    "preview": ("get", "/v1/preview"),
    "explain_preview": ("get", "/v1/preview/explain"),
    "put_item": ("put", "/v1/items"),
    "patch_item": ("patch", "/v1/items"),
    "get_item": ("get", "/v1/items"),
    "delete_item": ("delete", "/v1/items"),
    "put_items": ("post", "/v1/items"),
    "put_user": ("put", "/v1/users"),
    "patch_user": ("patch", "/v1/users"),
    "get_user": ("get", "/v1/users"),
    "delete_user": ("delete", "/v1/users"),
    "put_users": ("post", "/v1/users"),
    "merge": ("post", "/v1/identities/merge"),
    "put_blocks": ("put", "/v1/blocks"),
    "get_blocks": ("get", "/v1/blocks"),
    "delete_blocks": ("delete", "/v1/blocks"),
    "ready": ("get", "/readyz"),
}
WEB_SCHEMAS = ("RecommendationsBody", "RecommendationsAnswer", "ListAnswer", "Event", "EventsAnswer", "Problem")
WEB_PARAMETERS = ("SimilarParameters", "PopularParameters", "TrendingParameters")
Schema = dict[str, Any]


class Language(NamedTuple):
    """How a language spells the types of a schema."""

    words: dict[str, str]
    any: str
    list: str
    dict: str
    required: str
    optional: str
    note: str
    next_line: str


PY = Language(
    {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None",
     "object": "dict[str, Any]"},
    "Any", "list[{}]", "dict[str, {}]", "    {}: {}", "    {}: NotRequired[{}]", "    # {}", "    # ",
)  # fmt: skip
TS = Language(
    {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null",
     "object": "Record<string, unknown>"},
    "unknown", "({})[]", "Record<string, {}>", "  {}: {};", "  {}?: {};", "  /** {} */", "   * ",
)  # fmt: skip


def build_document() -> Schema:
    """Return the OpenAPI document of the routes, which need no service for it."""
    app, nobody = FastAPI(), cast(Service, SimpleNamespace(items=None, users=None))
    for routes in ROUTE_GROUPS:
        app.include_router(routes(nobody))
    return app.openapi()


def spell(schema: Schema, language: Language) -> str:
    """Return the type of a schema."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(spell(one, language) for one in schema["anyOf"]))
    if values := schema.get("enum", [schema["const"]] if "const" in schema else None):
        quoted = [f'"{value}"' for value in values]
        return f"Literal[{', '.join(quoted)}]" if language is PY else " | ".join(quoted)
    kinds = schema.get("type", [])
    spelled = [_spell_kind(kind, schema, language) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    return " | ".join(spelled) or language.any


def _spell_kind(kind: str, schema: Schema, language: Language) -> str:
    if kind == "array":
        inner = spell(schema["items"], language)
        return f"{inner}[]" if language is TS and " " not in inner else language.list.format(inner)
    if kind == "object" and isinstance(values := schema.get("additionalProperties"), dict):
        return language.dict.format(spell(values, language))
    return language.words[kind]


def list_fields(schema: Schema, language: Language) -> list[str]:
    """Return the lines of a schema's fields, each below its description."""
    lines = []
    for name, field in schema.get("properties", {}).items():
        if note := find_description(field):
            lines += textwrap.wrap(language.note.format(note), 118, subsequent_indent=language.next_line)
        kind = spell(field, language)
        is_required = name in schema.get("required", ())
        lines.append((language.required if is_required else language.optional).format(name, kind))
    return lines


def find_description(field: Schema) -> str:
    """Return the description of a field, or of the value that it may have beside null."""
    return next((str(one["description"]) for one in (field, *field.get("anyOf", ())) if "description" in one), "")


def find_parameters(document: Schema) -> dict[str, Schema]:
    """Return the query of each GET of METHODS as a schema, by its name."""
    return {
        name_parameters(method): {
            "description": f"Query of `{method}`.",
            "properties": {p["name"]: p["schema"] for p in operation["parameters"]},
            "required": [p["name"] for p in operation["parameters"] if p["required"]],
        }
        for method, operation in find_operations(document).items()
        if METHODS[method][0] == "get" and len(operation.get("parameters", ())) > 1
    }


def name_parameters(method: str) -> str:
    return "".join(part.capitalize() for part in method.split("_")) + "Parameters"


def find_operations(document: Schema) -> dict[str, Schema]:
    return {name: document["paths"][path][verb] for name, (verb, path) in METHODS.items()}


def is_open(schema: Schema, name: str) -> bool:
    """Return whether a body may have fields that the schema does not name."""
    return schema.get("additionalProperties") is True and not name.endswith("Answer")


def list_needed(document: Schema, names: tuple[str, ...]) -> list[str]:
    """Return the names of schemas and of those that they refer to, sorted."""
    found: set[str] = set()
    missing = set(names)
    while missing:
        found |= missing
        missing = {name for one in missing for name in list_references(document["components"]["schemas"][one])} - found
    return sorted(found)


def list_references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for one in value for name in list_references(one)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"].rpartition("/")[2]] if isinstance(value.get("$ref"), str) else []
    return own + [name for one in value.values() for name in list_references(one)]


# -- files -------------------------------------------------------------------------------------------------------


def render_models(what: str, schemas: dict[str, Schema]) -> str:
    """Return the module of the types of bodies and queries, or of answers."""
    parts = []
    for name, schema in sorted(schemas.items()):
        if is_open(schema, name):
            known = ", ".join(schema["properties"])
            parts.append(f'{name} = Mapping[str, Any]\n"""Fields {known}, and further columns."""')
        else:
            parts.append("\n".join([f"class {name}(TypedDict):", *list_fields(schema, PY)]))
    text = "\n\n\n".join(parts) + "\n"
    names = [name for name in ("Any", "Literal", "NotRequired", "TypedDict") if re.search(rf"\b{name}\b", text)]
    mapping = "from collections.abc import Mapping\n" if "Mapping[" in text else ""
    return (
        f'"""{what} of the HTTP API; {WRITTEN_BY}."""\n\nfrom __future__ import annotations\n\n'
        f"{mapping}from typing import {', '.join(names)}\n\n\n{text}"
    )


def render_web_models(document: Schema) -> str:
    """Return the TypeScript module of the types that a web page needs."""
    queries = {name: schema for name, schema in find_parameters(document).items() if name in WEB_PARAMETERS}
    schemas = {name: document["components"]["schemas"][name] for name in list_needed(document, WEB_SCHEMAS)}
    parts = [f"// Bodies, queries and answers of the HTTP API; {WRITTEN_BY}."]
    for name, schema in sorted({**schemas, **queries}.items()):
        parts.append("\n".join([f"export interface {name} {{", *list_fields(schema, TS), "}"]))
    return "\n\n".join(parts) + "\n"


def render_endpoints(document: Schema, is_async: bool) -> str:
    """Return the module with a method for each operation."""
    prefix = "Async" if is_async else ""
    parts = [
        f'"""Operations of the HTTP API as methods; {WRITTEN_BY}."""\n\n'
        "from __future__ import annotations\n\nfrom typing import Any, Unpack\n\n"
        "from handsell.client import answers as a\nfrom handsell.client import bodies as b\n"
        "from handsell.client.calls import ApiCall\n",
        f"class {prefix}Endpoints:\n    {'async ' if is_async else ''}def _send(self, call: ApiCall) -> Any:\n"
        '        """Make a call and return its answer; raises ClientError."""\n        raise NotImplementedError',
        *(render_method(name, operation, is_async) for name, operation in find_operations(document).items()),
    ]
    return "\n\n".join(parts) + "\n"


def render_method(name: str, operation: Schema, is_async: bool) -> str:
    """Return a method; the fields of a body or of a long query are its keyword arguments."""
    verb, path = METHODS[name]
    parameters = operation.get("parameters", [])
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    signature, arguments = ["self"], []
    if verb == "get" and len(parameters) > 1:
        signature.append(f"**query: Unpack[b.{name_parameters(name)}]")
        arguments.append("query=query")
    elif parameters:
        named = [(p["name"], spell(p["schema"], PY), p["required"]) for p in parameters]
        named.sort(key=lambda parameter: not parameter[2])
        signature += [f"{n}: {kind}" if required else f"*, {n}: {kind} | None = None" for n, kind, required in named]
        arguments.append(f"query={{{', '.join(f'{n!r}: {n}' for n, _, _ in named)}}}".replace("'", '"'))
    if body:
        model = spell(body, PY)
        is_row = model in ("ItemBody", "UserBody")
        signature.append(f"fields: b.{model}" if is_row else f"**body: Unpack[b.{model}]")
        arguments.append("body=fields" if is_row else "body=body")
    call = ", ".join([f'ApiCall("{verb.upper()}"', f'"{path}"', *arguments]) + ")"
    text = operation["description"].partition("; the form")[0].removesuffix(".")
    return (
        f"    {'async ' if is_async else ''}def {name}({', '.join(signature)}) -> {find_answer(operation)}:\n"
        f'        """{text}."""\n        return {"await " if is_async else ""}self._send({call})'
    )


def find_answer(operation: Schema) -> str:
    """Return the type of what an operation answers; None where an answer has no body."""
    found = []
    for status, response in operation["responses"].items():
        if status < "300":
            schema = response.get("content", {}).get("application/json", {}).get("schema")
            found.append(f"a.{spell(schema, PY)}" if schema else "None")
    return " | ".join(sorted(dict.fromkeys(found), reverse=True))


def render_files() -> dict[Path, str]:
    """Return the text of each file."""
    document = build_document()
    schemas = document["components"]["schemas"]
    answered = list_needed(document, tuple(name for name in schemas if name.endswith("Answer") or name == "Health"))
    sent = list_needed(document, tuple(name for name in schemas if name.endswith("Body")))
    bodies = {**{name: schemas[name] for name in sent}, **find_parameters(document)}
    python = {
        "answers.py": render_models("Answers", {name: schemas[name] for name in answered}),
        "bodies.py": render_models("Bodies and queries", bodies),
        "endpoints.py": render_endpoints(document, is_async=False),
        "async_endpoints.py": render_endpoints(document, is_async=True),
    }
    return {
        **{PYTHON / name: format_python(text) for name, text in python.items()},
        ROOT / "clients" / "web" / "src" / "models.ts": render_web_models(document),
    }


def format_python(text: str) -> str:
    command = [find_ruff_bin(), "format", "--line-length", "120", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    for path, text in render_files().items():
        path.write_text(text, encoding="utf-8")
