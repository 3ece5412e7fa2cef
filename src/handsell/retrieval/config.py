"""Candidate sources: what every `[retrieval.<name>]` section shares, and how retrievers register their own."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, SerializeAsAny, create_model, model_serializer, model_validator

from handsell.core.errors import ConfigError
from handsell.core.plugins import Plugin, find_plugins
from handsell.core.section import Section

MOST_SOURCES = 8  # Candidates carry a score and a rank of each


class SourceConfig(Section):
    """What every candidate source has."""

    enabled: bool = Field(True, description="false neither fits nor asks this source")
    k: int = Field(400, ge=1, description="candidates asked of this source")
    weight: float = Field(1.0, ge=0, description="weight of its ranks in the fused order (the blend)")


class OptionalSource(SourceConfig):
    """A source that is off until its section says `enabled = true`."""

    enabled: bool = Field(False, description="true fits and asks this source")


class FoldInSource(SourceConfig):
    """What every source that reads the history as weighted items has."""

    HISTORY: ClassVar[tuple[str, ...]] = ("weight_exponent", "half_life_days", "half_life_events", "dislikes")
    half_life_days: float = Field(28.0, gt=0, description="age at which an event of the history counts half")
    half_life_events: float | None = Field(
        None, gt=0, description="likes after it at which an event of the history counts half; none: only time counts"
    )
    dislikes: float = Field(
        1.0, ge=0, le=1, description="how much of its negative weight a disliked item of the history keeps; 0: none"
    )
    weight_exponent: float = Field(
        1.0, ge=0, le=1, description="power of the weight of a history event; 0: all likes count alike"
    )


class OptionalFoldIn(FoldInSource):
    """The same, off until its section says `enabled = true`."""

    enabled: bool = Field(False, description="true fits and asks this source")


class SessionConfig(OptionalSource):
    """What sources of the current session have."""

    session_gap_minutes: float = Field(1440.0, gt=0, description="a longer pause between events begins a new session")


@dataclass(frozen=True)
class RetrieverPlugin(Plugin):
    """One kind of retriever: its settings, how it is fitted, and the class that loads it."""

    package: ClassVar[str] = "handsell.retrieval.models"
    config: type[SourceConfig]
    model: type[Any]  # a Retriever with `save(path)` and `load(path)`
    fit: Callable[..., Any] | str  # fit(interactions, config, content); "module:function" where it imports torch
    purpose: str  # when to start with it, for docs/models.md
    needs: str = "interactions"
    order: int = 1_000  # place among the sources
    personal: bool = True  # looks at the user's history: may give a personal reason
    job: str = ""  # "module:function" that fits it on the Ray cluster with workers of its own; empty: one Ray task
    whole_config: bool = False  # fit takes the whole RetrievalConfig rather than its own section
    picked: bool = False  # `retrieval.sources = "auto"` may choose it
    most_items: int | None = None  # larger catalogs are not fitted by "auto"
    most_users: int | None = None
    least_events: int = 0
    search: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # what tuning tries, the first to start from

    def search_space(self) -> Mapping[str, tuple[Any, ...]]:
        """`search`; raises ConfigError where it names no field of the section, or no value for it."""
        unknown = [key for key, values in self.search.items() if key not in self.config.model_fields or not values]
        if unknown:
            raise ConfigError(
                f"retriever {self.name}: search names {', '.join(unknown)}: expected fields of {self.config.__name__}, "
                "with values"
            )
        return self.search

    def fit_function(self) -> Callable[..., Any]:
        return pkgutil.resolve_name(self.fit) if isinstance(self.fit, str) else self.fit


@cache
def retrievers() -> dict[str, RetrieverPlugin]:
    """Every registered retriever by name, in the order of `Candidates.sources`."""
    return dict(sorted(find_plugins(RetrieverPlugin).items(), key=lambda found: found[1].order))


@cache
def _sections() -> type[Section]:
    """One field for the section of each registered retriever."""
    fields: dict[str, Any] = {name: (plugin.config, plugin.config()) for name, plugin in retrievers().items()}
    return create_model("RetrieverSections", __base__=Section, **fields)


class RetrievalConfig(Section):
    """Settings of candidate generation; each source has a section of its own, `[retrieval.<name>]`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    sources: Literal["auto", "enabled"] | None = Field(
        None,
        description="auto: training picks the sources that suit the data, judged on the validation window; a section "
        "that says `enabled` keeps its word. enabled: as the sections say. Not set: auto for data.format = tables",
    )
    candidates: int = Field(1_000, ge=1, le=1_000, description="candidates passed on to ranking")
    flat_below: int = Field(50_000, ge=1, description="catalog size up to which the index is exact")
    pq_above: int = Field(
        1_000_000, ge=1, description="catalog size above which its lists hold product-quantized residuals"
    )
    index_recall: float = Field(
        0.95, gt=0, lt=1, description="share of a source's k exact nearest that an approximate index is tuned to find"
    )
    sections: dict[str, SerializeAsAny[SourceConfig]] = Field({}, json_schema_extra={"written": "by name"})

    def __getitem__(self, name: str) -> Any:
        """The section of a source; its class is that of the retriever's registration."""
        return self.sections[name]

    def with_sections(self, changed: Mapping[str, SourceConfig]) -> Self:
        """The same settings with other sections for some sources."""
        return self.model_copy(update={"sections": {**self.sections, **changed}})

    def said(self, name: str) -> bool | None:
        """What the section of a source says about `enabled` in so many words; None: nothing."""
        section = self.sections[name]
        return section.enabled if "enabled" in section.model_fields_set else None

    @property
    def enabled(self) -> tuple[str, ...]:
        """Sources that are switched on, in the order of `Candidates.sources`."""
        return tuple(name for name, section in self.sections.items() if section.enabled)

    @model_validator(mode="before")
    @classmethod
    def _by_registration(cls, raw: Any) -> Any:
        """Read `als = {…}` by the config class that the retriever `als` registers."""
        if not isinstance(raw, Mapping) or "sections" in raw:
            return raw
        named = {name: value for name, value in raw.items() if name in retrievers()}
        found = _sections().model_validate(named)
        return {**{k: v for k, v in raw.items() if k not in named}, "sections": dict(found)}

    @model_serializer(mode="wrap")
    def _flat(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Sections by name, as they are read."""
        out = handler(self)
        sections = out.pop("sections")
        return {**out, **sections}

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if len(self.enabled) > MOST_SOURCES:
            raise ValueError(
                f"expected at most {MOST_SOURCES} sources, got {len(self.enabled)} ({', '.join(self.enabled)}): switch "
                "some off with enabled = false, or put several into retrieval.blend.parts"
            )
        return self
