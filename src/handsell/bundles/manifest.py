"""The manifest of a bundle: its contents, its requirements, and the hash of every file; written last."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from handsell.core.errors import BundleError

MANIFEST = "manifest.json"
VERSION = 3  # increase when older bundles cannot be read; 3: ids as Arrow strings
LIBRARIES = ("handsell", "numpy", "pyarrow", "ray", "feast", "xgboost", "torch", "faiss-cpu", "scikit-learn")
BLOCK = 1 << 20


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Record):
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(_Record):
    """Identity, contents and origin of a bundle. Times are µs since the epoch, UTC; windows are [from, until)."""

    version: int = VERSION
    id: str = ""  # set by `seal`
    config: str = Field(description="name of the config that it was trained with")
    created_us: int
    data_start_us: int
    data_end_us: int = Field(description="the models use no data at or after this time")
    windows: dict[str, tuple[int, int]] = Field(default_factory=dict)
    feature_service: str
    service_features: tuple[str, ...] = Field((), description="features of that Feast service at the time of training")
    features: tuple[str, ...] = Field(description="names in the order of the ranker's columns")
    sources: tuple[str, ...] = Field(description="candidate sources in the order of Candidates.sources")
    shards: int = Field(1, ge=1, description="parts of each vector index; 1: not sharded")
    metrics: dict[str, float] = Field(default_factory=dict)
    metrics_of: Literal["holdout", "bundle"] = Field(
        "holdout",
        description="holdout: of the holdout model, with the same settings, fitted without the test window; bundle: of "
        "these models",
    )
    holdout_data_end_us: int | None = Field(None, description="data end of the holdout model's retrievers")
    events_through: int = Field(0, ge=0, description="offset of the event store that the user rows include")
    changes_through: int = Field(0, ge=0, description="offset of the catalog changes that the bundle includes")
    git_revision: str | None = None
    libraries: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: dict[str, FileEntry] = Field(default_factory=dict, description="by path in the bundle, without the manifest")

    @field_validator("metrics", mode="before")
    @classmethod
    def _finite(cls, metrics: dict[str, float]) -> dict[str, float]:
        """Leave out metrics without a value, which JSON cannot hold."""
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def seal(self, folder: Path) -> Manifest:
        """Return this manifest with the files of the folder, and an id derived from its time and contents."""
        files = {name: _entry(folder / name) for name in list_files(folder)}
        if not files:
            raise BundleError(f"bundle in {folder}: expected files of models, got none: save them before publishing")
        bare = self.model_copy(update={"files": files, "id": ""})
        digest = hashlib.sha256(bare.model_dump_json().encode()).hexdigest()[:8]
        created = datetime.fromtimestamp(self.created_us / 1e6, UTC)
        return bare.model_copy(update={"id": f"{created:%Y%m%dt%H%M%S}-{digest}"})

    def write(self, folder: Path) -> None:
        """Flush all files to disk, then write the manifest: a folder with a manifest is a complete bundle."""
        for name in self.files:
            _flush(folder / name)
        path = folder / MANIFEST
        path.write_text(json.dumps(self.model_dump(mode="json"), indent=1), encoding="utf-8")
        _flush(path)
        for inner in (*(p for p in folder.rglob("*") if p.is_dir()), folder):  # a folder holds the names of its files
            _flush(inner)

    def check(self, folder: Path, is_part: Callable[[str], bool] | None = None) -> None:
        """Raise BundleError for the first file that is missing, extra, or of another size or hash.

        `is_part` selects the files to check, by their path in the bundle; others may be missing.
        """
        there = set(list_files(folder))
        for name, entry in self.files.items():
            if is_part is not None and not is_part(name):
                continue
            if name not in there:
                raise self._build_error(f"expected file {name}, it is missing")
            self._check_file(folder / name, name, entry)
        if extra := sorted(there - set(self.files)):
            raise self._build_error(f"file {extra[0]} is not in the manifest ({len(extra)} such)")

    def _check_file(self, path: Path, name: str, entry: FileEntry) -> None:
        size = path.stat().st_size
        if size != entry.size:
            word = "truncated" if size < entry.size else "too long"
            raise self._build_error(f"file {name} is {word}: expected {entry.size} bytes, got {size}")
        if (digest := _digest(path)) != entry.sha256:
            raise self._build_error(
                f"file {name} is corrupt: expected SHA-256 {entry.sha256[:12]}…, got {digest[:12]}…"
            )

    def _build_error(self, what: str) -> BundleError:
        return BundleError(
            f"bundle {self.id}: {what}: copy the bundle again, or train a new one and roll back meanwhile"
        )


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest in a folder; raise BundleError if it is missing, unreadable or of another version."""
    path = folder / MANIFEST
    named = f"bundle {folder.name}: {MANIFEST}"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{named}: expected in {folder}, it is missing: the bundle is incomplete; train a new one"
        ) from None
    except (ValueError, OSError) as error:
        raise BundleError(f"{named}: expected JSON, it is not readable ({error}): copy the bundle again") from None
    _check_version(raw, named)
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise BundleError(f"{named}: {key}: {first['msg']}: copy the bundle again, or train a new one") from None
    if manifest.id != folder.name:
        raise BundleError(
            f"{named}: expected the id {folder.name!r} of its folder, got {manifest.id!r}: rename the folder"
        )
    for name in manifest.files:
        if name.startswith("/") or ".." in Path(name).parts:
            raise BundleError(f"{named}: file {name!r} is outside the bundle: do not use a bundle of unknown origin")
    return manifest


def list_files(folder: Path) -> list[str]:
    """Return the paths inside a bundle's folder, sorted, without the manifest; raise BundleError for a link."""
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BundleError(f"bundle {folder.name}: expected plain files, file {name} is a link: copy its target")
        if path.is_file() and name != MANIFEST:
            names.append(name)
    return names


def read_library_versions() -> dict[str, str]:
    """Return the installed versions of LIBRARIES, without importing them."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _check_version(raw: Any, named: str) -> None:
    version = raw.get("version") if isinstance(raw, dict) else None
    if version != VERSION:
        raise BundleError(
            f"{named}: expected version {VERSION}, got version {version}: "
            "use the handsell that wrote it, or train a new bundle with this one"
        )


def _entry(path: Path) -> FileEntry:
    return FileEntry(size=path.stat().st_size, sha256=_digest(path))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Flush to the disk itself, so that a power cut cannot leave a manifest without its files."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
