"""The form that adds a rule: its fields come from the schema of the rule's kind, also that of a plug-in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from handsell.reranking.rules.kind import rule_kinds
from handsell.reranking.rules.schema import Rule

SHARED = ("items", "newer_than_days", "creator_items_at_most")
DATES = ("from", "until")


@dataclass(frozen=True, slots=True)
class FormField:
    name: str
    label: str
    hint: str
    choices: tuple[str, ...] = ()
    is_number: bool = False
    is_required: bool = False

    @property
    def options(self) -> list[tuple[str, str]]:
        """Choices as values with their texts; the first leaves the key out, which has a default."""
        return [("", "as usual"), *((one, one) for one in self.choices)]


def list_fields(kind: str) -> list[FormField]:
    """Return the keys of a kind that other kinds lack; none for an unknown kind."""
    if kind not in rule_kinds():
        return []
    own = rule_kinds()[kind].schema.model_fields
    return [_describe_field(name, info) for name, info in own.items() if name not in Rule.model_fields]


def _describe_field(name: str, info: FieldInfo) -> FormField:
    choices = next((get_args(one) for one in _list_types(info.annotation) if get_origin(one) is Literal), ())
    is_number = any(one in (int, float) for one in _list_types(info.annotation))
    return FormField(
        name, name.replace("_", " ").capitalize(), _describe_range(info), tuple(map(str, choices)), is_number,
        info.is_required(),
    )  # fmt: skip


def _list_types(annotation: Any) -> list[Any]:
    """Return the types that a union is made of, without what `Annotated` adds."""
    if hasattr(annotation, "__metadata__"):
        return _list_types(annotation.__origin__)
    if get_origin(annotation) is Literal or not get_args(annotation):
        return [annotation]
    return [found for one in get_args(annotation) for found in _list_types(one)]


def _describe_range(info: FieldInfo) -> str:
    limits = [*info.metadata, *(limit for one in get_args(info.annotation) for limit in _list_limits(one))]
    low = next((getattr(limit, name) for limit in limits for name in ("ge", "gt") if hasattr(limit, name)), None)
    high = next((getattr(limit, name) for limit in limits for name in ("le", "lt") if hasattr(limit, name)), None)
    bounds = f"{low:g} to {high:g}" if low is not None and high is not None else ""
    described = (info.description or "").replace("`", "")
    return "; ".join(part for part in (bounds, described) if part)


def _list_limits(annotation: Any) -> Sequence[Any]:
    found: list[Any] = []
    for limit in getattr(annotation, "__metadata__", ()):
        found += getattr(limit, "metadata", None) or [limit]
    return found


def read_rule(form: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the keys of the rule that a form describes, in the order of a file; the rules' reader checks them."""
    kind = _get(form, "kind")
    found: dict[str, Any] = {"name": _get(form, "name"), "kind": kind}
    for name in (*SHARED, *(field.name for field in list_fields(kind))):
        found[name] = _convert(_get(form, name), is_text=name == "items")
    found["surfaces"] = [one for one in form.get("surfaces", ()) if one]
    for name in DATES:
        found[name] = _convert_date(_get(form, name))
    return {name: value for name, value in found.items() if value not in ("", [])}


def _get(form: Mapping[str, Sequence[str]], name: str) -> str:
    return (form.get(name) or [""])[-1].strip()


def _convert(text: str, is_text: bool) -> Any:
    """Return a number where the text is one."""
    if is_text:
        return text
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _convert_date(text: str) -> date | str:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return text
