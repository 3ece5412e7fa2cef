"""Names on the command line → retrievers that fit the format, and the fitting of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.protocols.coordinate_search import Params
from benchmarks.protocols.datasets import Part, Yardstick
from handsell.core.errors import ConfigError
from handsell.core.protocols import Retriever
from handsell.retrieval import registry
from handsell.retrieval.config import RetrievalConfig, retrievers
from handsell.retrieval.content_vectors import Content

EVERY = "all"
SINGLE = tuple(name for name in retrievers() if name != "blend")  # blends are asked for by their parts


def misfit(name: str, yard: Yardstick) -> str | None:
    """Why a retriever cannot be measured by this protocol, or None."""
    if name == "content" and yard.attributes is None:
        return "content needs --attributes (with --format sequences): without them it knows no item"
    if name == "history" and yard.masks_history:
        return "history finds only items of the history, which this protocol masks"
    return None


def chosen(names: Sequence[str], yard: Yardstick) -> tuple[list[str], list[str]]:
    """Names to measure, and why others of `all` are left out; raises ConfigError for a name that does not fit."""
    if EVERY in names:
        reasons = {name: misfit(name, yard) for name in SINGLE}
        return [n for n, why in reasons.items() if why is None], [why for why in reasons.values() if why is not None]
    for name in names:
        if name not in SINGLE:
            raise ConfigError(f"model {name!r} is unknown: expected {EVERY} or some of {', '.join(SINGLE)}")
        if why := misfit(name, yard):
            raise ConfigError(f"model {name!r} does not fit --format {yard.format}: {why}")
    return list(dict.fromkeys(names)), []


def section_of(name: str) -> Any:
    return RetrievalConfig()[name]


class ModelFactory:
    """Fits retrievers as training does, by name and hyper-parameters."""

    def __init__(self, yard: Yardstick, seed: int) -> None:
        self._yard, self._seed = yard, seed
        self._content: dict[int, Content] = {}

    def fit(self, name: str, params: Params, part: Part) -> Retriever:
        """Raises ConfigError where `params` do not suit the retriever's section."""
        config = self.config(name, params)
        return registry.fit(name, part.events, config, self._content_of(config["content"].embedding_size))

    def config(self, name: str, params: Params) -> RetrievalConfig:
        section = {**params}
        if "seed" in type(section_of(name)).model_fields:
            section["seed"] = self._seed
        try:
            return RetrievalConfig.model_validate({name: {**section_of(name).model_dump(), **section}})
        except ValueError as error:
            raise ConfigError(f"hyper-parameters {params} do not suit {name}: {error}") from None

    def _content_of(self, size: int) -> Content | None:
        if self._yard.attributes is None:
            return None
        if size not in self._content:
            self._content[size] = self._yard.attributes.content(size)
        return self._content[size]
