"""The manifest of a backup: what it holds, and the hash of every file; written last, so that it marks completeness."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from handsell.bundles.manifest import FileEntry
from handsell.core.errors import HandsellError

NAME = "backup.json"
VERSION = 1  # increase when older backups cannot be restored
ANOTHER = "use another backup, or copy this one again"


class BackupError(HandsellError):
    """A backup cannot be written, or is damaged, incomplete or of another deployment."""


class BackupManifest(BaseModel):
    """Contents of a backup. Offsets of the restored store continue after `last_offsets`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = VERSION
    config: str = Field(description="name of the config")
    created: str = Field(description="when the backup began, RFC 3339")
    handsell: str = Field(description="version that wrote it")
    engine: str = Field(description="engine of the event store: sqlite or postgresql")
    revision: str = Field(description="revision of the store's tables")
    rows: dict[str, int] = Field(description="rows by table of the store")
    last_offsets: dict[str, int] = Field(description="highest offset that any file of the backup may name, by table")
    live: str | None = Field(description="live bundle")
    files: dict[str, FileEntry] = Field(description="by path in the backup, without this manifest")


def find_files(folder: Path) -> list[str]:
    """Return the paths of all files in a backup, sorted, without the manifest."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != NAME)


def describe_file(path: Path) -> FileEntry:
    """Return size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(size=path.stat().st_size, sha256=digest)


def write_manifest(folder: Path, manifest: BackupManifest) -> None:
    """Flush everything to disk, then write the manifest with its own hash and put it in place."""
    content = manifest.model_dump(mode="json")
    text = json.dumps({"sha256": _digest(content), "backup": content}, indent=1)
    for path in (folder / name for name in manifest.files):
        flush(path)
    draft = folder / f".{NAME}"
    draft.write_text(text, encoding="utf-8")
    flush(draft)
    for inner in (*(path for path in folder.rglob("*") if path.is_dir()), folder, folder.parent):
        flush(inner)
    draft.replace(folder / NAME)
    flush(folder)


def read_manifest(folder: Path) -> BackupManifest:
    """Read the manifest; raises BackupError if it is missing, damaged or of another version."""
    path = folder / NAME
    if not folder.is_dir():
        raise BackupError(f"{folder} is not a folder: expected one that `handsell backup` has written")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        content, digest = raw["backup"], raw["sha256"]
    except FileNotFoundError:
        raise BackupError(
            f"{folder} has no {NAME}, which is written last: the backup is incomplete, or the folder is none; {ANOTHER}"
        ) from None
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise BackupError(f"{path} is damaged ({error!r}): {ANOTHER}") from None
    if _digest(content) != digest:
        raise BackupError(f"{path} is damaged: its content does not have the SHA-256 that it states; {ANOTHER}")
    version = content.get("version")
    if version != VERSION:
        raise BackupError(f"{path}: expected version {VERSION}, got {version}: restore with the handsell that wrote it")
    try:
        return BackupManifest.model_validate(content)
    except ValidationError as error:
        raise BackupError(f"{path} is damaged ({error.errors()[0]['msg']}): {ANOTHER}") from None


def check_files(folder: Path, manifest: BackupManifest) -> None:
    """Raise BackupError for the first file that is missing or differs from its size or hash."""
    for name, expected in manifest.files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BackupError(f"{folder}: file {name!r} is outside the backup: do not use a backup of unknown origin")
        if not path.is_file():
            raise BackupError(f"{path} is missing: the backup is incomplete; {ANOTHER}")
        found = describe_file(path)
        if found.size != expected.size:
            raise BackupError(f"{path} is damaged: expected {expected.size:,} bytes, got {found.size:,}; {ANOTHER}")
        if found.sha256 != expected.sha256:
            raise BackupError(
                f"{path} is damaged: expected SHA-256 {expected.sha256[:12]}…, got {found.sha256[:12]}…; {ANOTHER}"
            )


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
