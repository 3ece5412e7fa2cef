"""One TOML file per deployment, read into one frozen object.

    config = load_config(Path("deployments/configs/world.toml"))

Paths: `Config.state` is the folder in which everything of this deployment is kept (data, features,
bundles, logs). It is `$HANDSELL_HOME/<name>`, or `.handsell/<name>` beside the project's
`feature_repo`, or beside the TOML file where there is none. `$HANDSELL_DATA` overrides `data.path`.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from pydantic import Field, PrivateAttr, ValidationError

from handsell.bundles.config import GateConfig
from handsell.core.errors import ConfigError
from handsell.core.section import Section
from handsell.data.config import DataConfig, EventsConfig, SplitConfig
from handsell.eligibility.config import Surface
from handsell.features.config import FeaturesConfig
from handsell.jobs.config import JobsConfig, TuningConfig
from handsell.ranking.config import RankingConfig
from handsell.reranking.config import RerankingConfig
from handsell.retrieval.config import RetrievalConfig
from handsell.serving.config import ServingConfig


class Config(Section):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,30}$", description="names the state folder and the Feast project")
    data: DataConfig = DataConfig()
    events: EventsConfig = EventsConfig()
    split: SplitConfig = SplitConfig()
    features: FeaturesConfig = FeaturesConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    ranking: RankingConfig = RankingConfig()
    reranking: RerankingConfig = RerankingConfig()
    tuning: TuningConfig = TuningConfig()
    surfaces: dict[str, Surface] = Field(
        default_factory=lambda: {"home": Surface(), "similar": Surface(repeat="allow")},
        description="by name; `home` is the default surface of a request",
    )
    serving: ServingConfig = ServingConfig()
    jobs: JobsConfig = JobsConfig()
    gate: GateConfig = GateConfig()

    _source: Path | None = PrivateAttr(None)

    @property
    def surface_names(self) -> tuple[str, ...]:
        """Surface codes in `Requests.surface` are indices here."""
        return tuple(self.surfaces)

    @property
    def picks_sources(self) -> bool:
        """Whether training chooses the candidate sources."""
        said = self.retrieval.sources
        return said == "auto" or (said is None and self.data.format == "tables")

    @property
    def source(self) -> Path:
        """The TOML file it was read from."""
        if self._source is None:
            raise ConfigError("this config was not read from a file: use load_config(path)")
        return self._source

    @property
    def state(self) -> Path:
        return home(self.source) / self.name

    @property
    def data_path(self) -> Path | None:
        """The folder of the source data, absolute: $HANDSELL_DATA, else data.path beside the TOML file."""
        given = os.environ.get("HANDSELL_DATA")
        if given:
            return Path(given).expanduser().resolve()
        if self.data.path is None:
            return None
        return (self.source.parent / self.data.path).resolve()

    @property
    def rules_path(self) -> Path | None:
        """The file of business rules, absolute; None where the deployment has none."""
        rules = self.reranking.rules
        return None if rules is None else (self.source.parent / rules).absolute()


def project_root(source: Path) -> Path:
    """The folder that holds `feature_repo`, seen from a config file; its own folder where there is none."""
    for folder in source.parents:
        if (folder / "feature_repo").is_dir():
            return folder
    return source.parent


def shipped(source: Path, part: str) -> Path | None:
    """A file of the checkout: above the config file, around this package, or in the working folder."""
    places = (*source.parents, Path(__file__).parents[3], Path.cwd())
    return next((place / part for place in places if (place / part).exists()), None)


def home(source: Path) -> Path:
    """The folder of all deployments' state for a config file."""
    given = os.environ.get("HANDSELL_HOME")
    return Path(given).expanduser().resolve() if given else project_root(source) / ".handsell"


def load_config(path: Path | str) -> Config:
    """Read and check a TOML file; raises ConfigError naming the key, what was expected and what was received."""
    source = Path(path).expanduser().resolve()
    try:
        raw = tomllib.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"config {source} does not exist: give a TOML file such as deployments/configs/world.toml"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(f"config {source} is not readable TOML: {error}") from None
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"config {source}:\n" + "\n".join(_lines(error))) from None
    config._source = source
    if "home" not in config.surfaces:
        raise ConfigError(f"config {source}: surfaces: a surface named 'home' is expected; add [surfaces.home]")
    _require_enabled(config)
    _require_surfaces(config)
    return config


def _require_surfaces(config: Config) -> None:
    for name, surface in config.surfaces.items():
        if unknown := [other for other in surface.seen_on if other not in config.surfaces]:
            raise ConfigError(
                f"config {config.source}: surfaces.{name}.seen_on has {', '.join(unknown)}: expected surfaces of this "
                f"config ({', '.join(config.surfaces)}); add [surfaces.{unknown[0]}], or take it out of the list"
            )
        on = config.retrieval.enabled
        if unknown := [source for source in surface.only if source not in on]:
            raise ConfigError(
                f"config {config.source}: surfaces.{name}.only has {', '.join(unknown)}: expected enabled sources "
                f"({', '.join(on)}); set enabled = true in its section, or take it out of the list"
            )


def _require_enabled(config: Config) -> None:
    on = config.retrieval.enabled
    if others := [name for name in config.tuning.sources if name not in on]:
        raise ConfigError(
            f"config {config.source}: tuning.sources has {', '.join(others)}: expected enabled sources "
            f"({', '.join(on)}); set enabled = true in its section, or take it out of the list"
        )


def _lines(error: ValidationError) -> list[str]:
    return [f"  {'.'.join(map(str, e['loc']))}: {e['msg']} (received: {e['input']!r:.80})" for e in error.errors()]


__all__ = [
    "Config",
    "DataConfig",
    "EventsConfig",
    "FeaturesConfig",
    "GateConfig",
    "JobsConfig",
    "RankingConfig",
    "RerankingConfig",
    "RetrievalConfig",
    "ServingConfig",
    "SplitConfig",
    "Surface",
    "TuningConfig",
    "home",
    "load_config",
    "project_root",
    "shipped",
]
