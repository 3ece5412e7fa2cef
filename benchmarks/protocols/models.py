"""Selection of retrievers by name and format, and fitting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.protocols.coordinate_search import Params
from benchmarks.protocols.datasets import Part, ProtocolData
from handsell.core.errors import ConfigError
from handsell.core.protocols import Retriever
from handsell.retrieval import registry
from handsell.retrieval.config import RetrievalConfig, retrievers
from handsell.retrieval.content_vectors import Content

ALL = "all"
SINGLE = tuple(name for name in retrievers() if name != "blend")  # a blend is named by its parts


def explain_misfit(name: str, data: ProtocolData) -> str | None:
    """Return why a retriever cannot be measured by this protocol, or None."""
    if name == "content" and data.attributes is None:
        return "content needs --attributes (with --format sequences)"
    if name == "history" and data.masks_history:
        return "history returns only items of the history, which this protocol masks"
    return None


def select_models(names: Sequence[str], data: ProtocolData) -> tuple[list[str], list[str]]:
    """Return the names to measure and why others are skipped; raises ConfigError for a name that does not fit."""
    if ALL in names:
        reasons = {name: explain_misfit(name, data) for name in SINGLE}
        return [n for n, why in reasons.items() if why is None], [why for why in reasons.values() if why is not None]
    for name in names:
        if name not in SINGLE:
            raise ConfigError(f"model {name!r} is unknown: expected {ALL} or any of {', '.join(SINGLE)}")
        if why := explain_misfit(name, data):
            raise ConfigError(f"model {name!r} does not fit --format {data.format}: {why}")
    return list(dict.fromkeys(names)), []


def default_section(name: str) -> Any:
    return RetrievalConfig()[name]


def select_space(name: str, data: ProtocolData) -> dict[str, Sequence[Any]]:
    """Return the values to try by field; without half-lives by age where the lines have no order."""
    space = retrievers()[name].search_space()
    return {field: values for field, values in space.items() if data.ordered or field != "half_life_days"}


class ModelFactory:
    """Fits retrievers as training does, by name and hyper-parameters."""

    def __init__(self, data: ProtocolData, seed: int) -> None:
        self._data, self._seed = data, seed
        self._content: dict[int, Content] = {}

    def fit(self, name: str, params: Params, part: Part) -> Retriever:
        """Fit a retriever; raises ConfigError for invalid hyper-parameters."""
        config = self._build_config(name, params)
        return registry.fit(name, part.events, config, self._fit_content(config["content"].embedding_size))

    def _build_config(self, name: str, params: Params) -> RetrievalConfig:
        section = {**params}
        if "seed" in type(default_section(name)).model_fields:
            section["seed"] = self._seed
        try:
            return RetrievalConfig.model_validate({name: {**default_section(name).model_dump(), **section}})
        except ValueError as error:
            raise ConfigError(f"hyper-parameters {params} are invalid for {name}: {error}") from None

    def _fit_content(self, size: int) -> Content | None:
        if self._data.attributes is None:
            return None
        if size not in self._content:
            self._content[size] = self._data.attributes.fit_content(size)
        return self._content[size]
