"""The configuration of one deployment: a section for each component, whose class lives beside the component."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, PrivateAttr

from handsell.access.config import AccessConfig
from handsell.bundles.config import GateConfig
from handsell.config.locations import expand_path, make_absolute, state_home
from handsell.console.config import ConsoleConfig
from handsell.core.errors import ConfigError
from handsell.core.paths import is_uri
from handsell.core.section import Section
from handsell.data.config import DataConfig, EventsConfig, SplitConfig
from handsell.eligibility.config import Surface
from handsell.experiments.config import Experiment, HoldoutConfig
from handsell.features.config import FeaturesConfig
from handsell.jobs.config import JobsConfig, TuningConfig
from handsell.maintenance.config import RetentionConfig
from handsell.onboarding.config import OnboardingConfig
from handsell.ranking.config import RankingConfig
from handsell.reranking.config import RerankingConfig
from handsell.retrieval.config import RetrievalConfig
from handsell.serving.config import ServingConfig
from handsell.serving.guard_rails.config import CanaryConfig
from handsell.serving.telemetry.config import LoggingConfig, TracingConfig
from handsell.storage.config import NO_STORAGE, STORAGE_VARIABLE, StorageConfig, check_storage_uri

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,30}$"


class Config(Section):
    name: str = Field(pattern=NAME_PATTERN, description="name of the state folder and of the Feast project")
    data: DataConfig = DataConfig()
    events: EventsConfig = EventsConfig()
    split: SplitConfig = SplitConfig()
    features: FeaturesConfig = FeaturesConfig()
    retrieval: RetrievalConfig = Field(default_factory=RetrievalConfig)  # not at import: it imports plug-ins
    ranking: RankingConfig = RankingConfig()
    reranking: RerankingConfig = RerankingConfig()
    onboarding: OnboardingConfig = OnboardingConfig()
    tuning: TuningConfig = TuningConfig()
    surfaces: dict[str, Surface] = Field(
        default_factory=lambda: {"home": Surface(), "similar": Surface(repeat="allow")},
        description="by name; `home` is the default surface of a request",
    )
    serving: ServingConfig = ServingConfig()
    access: AccessConfig = AccessConfig()
    console: ConsoleConfig = ConsoleConfig()
    jobs: JobsConfig = JobsConfig()
    gate: GateConfig = GateConfig()
    experiments: dict[str, Experiment] = Field({}, description="by name; see docs/experiments.md")
    holdout: HoldoutConfig = HoldoutConfig()
    canary: CanaryConfig = CanaryConfig()
    retention: RetentionConfig = RetentionConfig()
    storage: StorageConfig = StorageConfig()
    logging: LoggingConfig = LoggingConfig()
    tracing: TracingConfig = TracingConfig()

    _source: Path | None = PrivateAttr(None)

    @property
    def surface_names(self) -> tuple[str, ...]:
        """Names of the surfaces; codes in `Requests.surface` are positions in this tuple."""
        return tuple(self.surfaces)

    @property
    def picks_sources(self) -> bool:
        """Whether training chooses the candidate sources."""
        sources = self.retrieval.sources
        return sources == "auto" or (sources is None and self.data.format == "tables")

    @property
    def source(self) -> Path:
        """The TOML file of this config; raises ConfigError for a config that was not loaded from a file."""
        if self._source is None:
            raise ConfigError("this config was not loaded from a file: use load_config(path)")
        return self._source

    @property
    def state(self) -> Path:
        """The folder of everything that belongs to this deployment: data, features, bundles, logs."""
        return state_home(self.source) / self.name

    @property
    def storage_uri(self) -> str | None:
        """The folder of this deployment in object storage: that of its name below $HANDSELL_STORAGE or storage.uri.

        None if everything is in the state folder; else the state folder is scratch space and cache. Raises ConfigError.
        """
        given = os.environ.get(STORAGE_VARIABLE)
        if given == NO_STORAGE:
            return None
        try:
            uri = check_storage_uri(given) if given else self.storage.uri
        except ValueError as error:
            raise ConfigError(f"${STORAGE_VARIABLE}: {error}") from None
        return None if uri is None else f"{uri}/{self.name}"

    @property
    def data_path(self) -> Path | None:
        """The folder of the source data, absolute: $HANDSELL_DATA, or data.path relative to the TOML file.

        None without either, or if it is a URI.
        """
        if self.data_uri:
            return None
        path = os.environ.get("HANDSELL_DATA")
        if path:
            return expand_path(path, "HANDSELL_DATA")
        if self.data.path is None:
            return None
        return make_absolute(self.source.parent / self.data.path)

    @property
    def data_uri(self) -> str | None:
        """The URI of the source data, such as s3://bucket/folder, if $HANDSELL_DATA or else data.path is one."""
        path = os.environ.get("HANDSELL_DATA") or self.data.path
        return path if path and is_uri(path) else None

    @property
    def rules_path(self) -> Path | None:
        """The file of business rules, absolute; None if there is none."""
        rules = self.reranking.rules
        return None if rules is None else make_absolute(self.source.parent / rules)
