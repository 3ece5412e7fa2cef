"""Settings of candidate generation, `[retrieval]`, and the registration of retrievers with their sections."""

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

MAX_SOURCES = 8  # `Candidates` holds a score and a rank per source


class SourceConfig(Section):
    """Keys of every candidate source."""

    enabled: bool = Field(True, description="whether this source is fitted and queried")
    k: int = Field(400, ge=1, description="candidates requested from this source")
    weight: float = Field(1.0, ge=0, description="weight of this source in reciprocal rank fusion")

    @property
    def distributed(self) -> bool:
        """Whether the fit takes several Ray workers, if the plug-in has a `job`."""
        return True

    @property
    def needs_workers(self) -> bool:
        """Whether the `job` of the plug-in fits it on small data, too."""
        return self.distributed


class NeuralSource(SourceConfig):
    """Keys of a source that is trained by torch."""

    workers: int = Field(1, ge=1, description="Ray Train workers")

    @property
    def needs_workers(self) -> bool:
        return self.workers > 1


class OptionalSource(SourceConfig):
    """A source that is off by default."""

    enabled: bool = Field(False, description="whether this source is fitted and queried")


class FoldInSource(SourceConfig):
    """Keys of a source that reads the history as weighted items (history_weights.py)."""

    # Keys that training chooses on the validation window, without fitting the model again.
    HISTORY_KEYS: ClassVar[tuple[str, ...]] = ("weight_exponent", "half_life_days", "half_life_events", "dislikes")
    half_life_days: float = Field(28.0, gt=0, description="half-life of a history event by age")
    half_life_events: float | None = Field(
        None, gt=0, description="half-life of a history event by the number of later likes; none: only age counts"
    )
    dislikes: float = Field(
        1.0, ge=0, le=1, description="factor of the negative weight of disliked items in the history; 0 ignores them"
    )
    weight_exponent: float = Field(
        1.0, ge=0, le=1, description="exponent of the event weight in the history; 0: all likes count the same"
    )


class OptionalFoldIn(FoldInSource):
    """A `FoldInSource` that is off by default."""

    enabled: bool = Field(False, description="whether this source is fitted and queried")


class SessionConfig(OptionalSource):
    """Keys of a source that reads the current session (sessions.py); off by default."""

    session_gap_minutes: float = Field(1440.0, gt=0, description="pause between events that starts a new session")


@dataclass(frozen=True)
class RetrieverPlugin(Plugin):
    """Registration of a retriever: its config class, its fit function and its model class."""

    package: ClassVar[str] = "handsell.retrieval.models"
    config: type[SourceConfig]
    model: type[Any]  # a Retriever with `save(path)` and `load(path)`
    fit: Callable[..., Any] | str  # fit(interactions, config, content); "module:function" where it imports torch
    purpose: str  # when to start with it, completes "start here when …" in docs/models.md
    needs: str = "interactions"  # the data that it needs, likewise
    order: int = 1_000  # position in `Candidates.sources`
    personal: bool = True  # uses the history: its items may get a personal reason
    job: str = ""  # "module:function" that fits it on several Ray workers, if its section is `distributed`
    whole_config: bool = False  # `fit` takes the RetrievalConfig instead of its own section
    auto_selectable: bool = False  # `retrieval.sources = "auto"` may select it …
    max_items: int | None = None  # … for catalogs of at most this size,
    max_users: int | None = None  # at most this number of users
    min_events: int = 0  # and at least this number of events
    search: Mapping[str, tuple[Any, ...]] = field(
        default_factory=dict
    )  # values that tuning tries by key; it starts from the first

    def search_space(self) -> Mapping[str, tuple[Any, ...]]:
        """Return `search`; raises ConfigError for a key that the config class lacks or that has no values."""
        unknown = [key for key, values in self.search.items() if key not in self.config.model_fields or not values]
        if unknown:
            raise ConfigError(
                f"retriever {self.name}: search expects fields of {self.config.__name__} with at least one value, got "
                f"{', '.join(unknown)}: correct the registration"
            )
        return self.search

    def resolve_fit(self) -> Callable[..., Any]:
        """Return the fit function, imported where `fit` is a string."""
        return pkgutil.resolve_name(self.fit) if isinstance(self.fit, str) else self.fit


@cache
def retrievers() -> dict[str, RetrieverPlugin]:
    """Return every registered retriever by name, in the order of `Candidates.sources`."""
    return dict(sorted(find_plugins(RetrieverPlugin).items(), key=lambda found: found[1].order))


@cache
def _build_sections_class() -> type[Section]:
    """Build a config class with one field per registered retriever."""
    fields: dict[str, Any] = {name: (plugin.config, plugin.config()) for name, plugin in retrievers().items()}
    return create_model("RetrieverSections", __base__=Section, **fields)


class RetrievalConfig(Section):
    """Settings of candidate generation; every source has a section `[retrieval.<name>]`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    sources: Literal["auto", "enabled"] | None = Field(
        None,
        description="auto: training selects the sources by their quality on the validation window; a section that sets "
        "`enabled` overrides this. enabled: the sections decide. Not set: auto for data.format = tables",
    )
    candidates: int = Field(1_000, ge=1, le=1_000, description="candidates passed to ranking")
    flat_below: int = Field(50_000, ge=1, description="number of items up to which the index is exact")
    pq_above: int = Field(
        1_000_000, ge=1, description="number of items above which the index stores product-quantized residuals"
    )
    shards: int = Field(
        1,
        ge=1,
        le=64,
        description="parts into which training cuts the items of each index; above 1, the topology `graph` has a "
        "deployment per shard (docs/serving.md)",
    )
    index_recall: float = Field(
        0.95, gt=0, lt=1, description="recall of the k exact nearest items to which an approximate index is tuned"
    )
    sections: dict[str, SerializeAsAny[SourceConfig]] = Field({}, json_schema_extra={"written": "by name"})

    def __getitem__(self, name: str) -> Any:
        """Return the section of a source, of the config class that its retriever registers."""
        return self.sections[name]

    def with_sections(self, changed: Mapping[str, SourceConfig]) -> Self:
        """Return a copy with some sections replaced."""
        return self.model_copy(update={"sections": {**self.sections, **changed}})

    def explicitly_enabled(self, name: str) -> bool | None:
        """Return `enabled` of a source where its section sets it, else None."""
        section = self.sections[name]
        return section.enabled if "enabled" in section.model_fields_set else None

    @property
    def enabled(self) -> tuple[str, ...]:
        """Names of the enabled sources, in the order of `Candidates.sources`."""
        return tuple(name for name, section in self.sections.items() if section.enabled)

    @model_validator(mode="before")
    @classmethod
    def _read_sections(cls, raw: Any) -> Any:
        """Validate each source's keys with the config class that its retriever registers."""
        if not isinstance(raw, Mapping) or "sections" in raw:
            return raw
        named = {name: value for name, value in raw.items() if name in retrievers()}
        found = _build_sections_class().model_validate(named)
        return {**{k: v for k, v in raw.items() if k not in named}, "sections": dict(found)}

    @model_serializer(mode="wrap")
    def _write_sections(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Write sections under their names, as they are read."""
        out = handler(self)
        sections = out.pop("sections")
        return {**out, **sections}

    @model_validator(mode="after")
    def _limit_sources(self) -> Self:
        if len(self.enabled) > MAX_SOURCES:
            raise ValueError(
                f"expected at most {MAX_SOURCES} sources, got {len(self.enabled)} ({', '.join(self.enabled)}): "
                "disable some with enabled = false, or combine several in retrieval.blend.parts"
            )
        return self
