"""Choose the reader of a config by data.format; "auto" looks at the files in the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from handsell.config import Config, state_home
from handsell.core.errors import DataError
from handsell.data import download
from handsell.data.readers import movielens, sequences
from handsell.data.readers.atomic import Atomic
from handsell.data.readers.base import Reader
from handsell.data.readers.formats.file_access import hide_secrets
from handsell.data.readers.sequences import Sequences
from handsell.data.readers.tables import Tables
from handsell.data.readers.world import World

EXPECTED = (
    "ratings.csv + movies.csv, ratings.dat + movies.dat, u.data + u.item (MovieLens), NAME.inter (RecBole atomic), "
    "or a text file of `user item item …` lines (sequences)"
)


def open_reader(config: Config, progress: Callable[[str], None] = print) -> Reader:
    """Return the reader of the configured source; downloads MovieLens if configured.

    Raises DataError if there is no readable source.
    """
    if config.data.format == "world":
        return World(config.data.world)
    if config.data.format == "tables" or (config.data.format == "auto" and config.data.tables):
        if config.data.tables is None:
            raise DataError(f'{config.source}: data.format = "tables" expects [data.tables.events] with a path; add it')
        return Tables(
            config.data_uri or config.data_path or config.source.parent, config.data.tables, config.events.names
        )
    return detect(find_source(config, progress), config.data.format)


def find_source(config: Config, progress: Callable[[str], None] = print) -> Path:
    """Return the path of the source; without data.path, the data set of data.download is downloaded."""
    if uri := config.data_uri:
        raise DataError(f'data.path ({hide_secrets(uri)}): only tables are read from URIs; set data.format = "tables"')
    if path := config.data_path:
        if not path.exists():
            raise DataError(f"data.path ({path}) does not exist: expected {EXPECTED}; set data.path or DATA")
        return path
    if config.data.download:
        return download.fetch(config.data.download, state_home(config.source) / "downloads", progress=progress)
    raise DataError(
        f"{config.source}: expected a data source, got none: set data.path (or DATA=folder on the command line), "
        'data.download = "ml-latest-small", or data.format = "world"'
    )


def detect(path: Path, kind: str = "auto") -> Reader:
    """Return the reader for the files at a path; `kind` limits the search to one format."""
    found = [reader for name, find in FINDERS.items() if kind in ("auto", name) for reader in find(path)]
    if len(found) == 1:
        return found[0]
    if not found:
        got = ", ".join(sorted(p.name for p in path.iterdir())[:12]) if path.is_dir() else path.name
        raise DataError(f"{path}: expected {EXPECTED}; got: {got or 'an empty folder'}; set data.format and data.path")
    sources = ", ".join(str(reader.files()[0]) for reader in found)
    raise DataError(f"{path}: expected one source, got {sources}; set data.path to one file, or set data.format")


def _movielens(path: Path) -> list[Reader]:
    return [layout(path) for layout in movielens.LAYOUTS if all((path / name).exists() for name in layout.names[:2])]


def _atomic(path: Path) -> list[Reader]:
    files = sorted(path.glob("*.inter")) if path.is_dir() else [path]
    return [Atomic(file) for file in files if file.suffix == ".inter"]


def _sequences(path: Path) -> list[Reader]:
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    texts = [
        f for f in files if f.suffix == ".txt" and "readme" not in f.name.lower() and sequences.is_sequence_file(f)
    ]
    return [Sequences(file, next(iter(sorted(file.parent.glob("*attributes*.json"))), None)) for file in texts]


FINDERS: dict[str, Callable[[Path], list[Reader]]] = {
    "movielens": _movielens,
    "atomic": _atomic,
    "sequences": _sequences,
}
