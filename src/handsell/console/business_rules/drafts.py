"""Drafts of rules: texts that people look at before one is published, by the hash of their content."""

from __future__ import annotations

import re
from pathlib import Path

from handsell.core.errors import ConfigError
from handsell.reranking.rules.reading import version_of

KEPT = 50  # newest drafts
LARGEST = 200_000  # bytes
VERSION = re.compile(r"[0-9a-f]{12}")


class RuleDrafts:
    def __init__(self, folder: Path):
        self._folder = folder

    def save(self, text: str) -> str:
        """Keep a draft and return its version; raises ConfigError for one that is too large."""
        content = text.replace("\r\n", "\n").encode("utf-8", "replace")
        if len(content) > LARGEST:
            raise ConfigError(
                f"rules: expected at most {LARGEST:,} bytes, got {len(content):,}: remove what is not used"
            )
        version = version_of(content)
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / f".{version}.new"
        fresh.write_bytes(content)
        fresh.replace(self.find_path(version))
        for old in sorted(self._folder.glob("*.toml"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
        return version

    def read(self, version: str) -> bytes | None:
        """Return the content of a draft; None for one that is not kept."""
        path = self.find_path(version) if VERSION.fullmatch(version) else None
        return path.read_bytes() if path is not None and path.is_file() else None

    def find_path(self, version: str) -> Path:
        return self._folder / f"{version}.toml"
