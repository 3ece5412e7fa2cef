"""Which config file a state folder belongs to: two configs of one name would overwrite each other's data."""

from __future__ import annotations

from pathlib import Path

from handsell.config import Config
from handsell.core.errors import ConfigError

OWNER = "config.path"  # file in the state folder


def claim_state(config: Config) -> None:
    """Record that the state folder belongs to this config file; raises ConfigError if it belongs to another one."""
    require_owner(config)
    try:
        config.state.mkdir(parents=True, exist_ok=True)
        (config.state / OWNER).write_text(str(config.source), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot write to the state folder {config.state}: {error.strerror}. Set HANDSELL_HOME to a folder that "
            "you may write to"
        ) from None


def require_owner(config: Config) -> None:
    """Raise ConfigError if the state folder belongs to another config file that still exists."""
    try:
        owner = (config.state / OWNER).read_text(encoding="utf-8").strip()
        taken = bool(owner) and Path(owner).is_file() and not Path(owner).samefile(config.source)
    except (OSError, ValueError):  # never claimed, unreadable or damaged
        return
    if taken:
        raise ConfigError(
            f"{config.source} and {owner} have the same name, {config.name}, and thus the same state folder "
            f"{config.state}: give one of them another name, or its own HANDSELL_HOME"
        )
