"""Read a config file and check what concerns more than one section."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from handsell.config.experiment_checks import check_experiments
from handsell.config.locations import expand_path
from handsell.config.schema import Config
from handsell.core.errors import ConfigError
from handsell.core.logs.passwords import hide_passwords


def load_config(path: Path | str) -> Config:
    """Read and check a TOML file; raises ConfigError naming the key, what was expected and what was received."""
    source = expand_path(path, "CONFIG")
    try:
        raw = tomllib.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"config {source} does not exist: expected a TOML file; `handsell init NAME` writes one"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"config {source} is not readable TOML: {error}") from None
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"config {source}:\n" + "\n".join(_error_lines(error))) from None
    config._source = source
    if "home" not in config.surfaces:
        raise ConfigError(f"config {source}: surfaces: expected a surface named 'home'; add [surfaces.home]")
    _check_sources(config, "tuning.sources", config.tuning.sources)
    for name, surface in config.surfaces.items():
        _check_sources(config, f"surfaces.{name}.only", surface.only)
        if unknown := [other for other in surface.seen_on if other not in config.surfaces]:
            raise ConfigError(
                f"config {source}: surfaces.{name}.seen_on has {', '.join(unknown)}: expected surfaces of this "
                f"config ({', '.join(config.surfaces)}); add [surfaces.{unknown[0]}], or remove it from the list"
            )
    check_experiments(config)
    return config


def _check_sources(config: Config, key: str, sources: Sequence[str]) -> None:
    """Raise ConfigError if the list at a key names a candidate source that is not enabled."""
    enabled = config.retrieval.enabled
    if others := [name for name in sources if name not in enabled]:
        raise ConfigError(
            f"config {config.source}: {key} has {', '.join(others)}: expected enabled sources "
            f"({', '.join(enabled)}); set enabled = true in its section, or remove it from the list"
        )


def _error_lines(error: ValidationError) -> list[str]:
    return [
        f"  {'.'.join(map(str, e['loc']))}: {e['msg']} (received: {hide_passwords(repr(e['input'])):.80})"
        for e in error.errors()
    ]
