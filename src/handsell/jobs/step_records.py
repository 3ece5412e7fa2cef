"""The inputs with which each step before training ran last, so that an unchanged one is skipped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from handsell.config import Config
from handsell.core.plugins import import_plugins


def is_current(config: Config, step: str, inputs: object) -> bool:
    """Return whether the step has run to its end with these inputs, and not with others since."""
    return read_record(config, step) == _digest(inputs)


def read_record(config: Config, step: str) -> str:
    """Return a digest of the inputs of a step's last run, empty if it has not run to its end."""
    path = _record_path(config, step)
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


@contextmanager
def record_step(config: Config, step: str, inputs: object) -> Iterator[None]:
    """Record the inputs after the block; a step that fails has no record."""
    path = _record_path(config, step)
    path.unlink(missing_ok=True)
    yield
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_digest(inputs), encoding="utf-8")


def code_digest(without: tuple[str, ...] = ("cli", "client", "local", "doctor", "serving", "console")) -> str:
    """Return a digest of the source of this package, by default of the folders that compute data, and of plug-ins."""
    root = Path(__file__).parent.parent
    sources = [path for path in sorted(root.rglob("*.py")) if path.relative_to(root).parts[0] not in without]
    return digest_files(sources + [Path(module.__file__) for module in import_plugins() if module.__file__])


def digest_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _record_path(config: Config, step: str) -> Path:
    return config.state / "completed" / step


def _digest(inputs: object) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
