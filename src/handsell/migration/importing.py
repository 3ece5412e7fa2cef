"""Import a source of another system into a new folder: tables, a config and the counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from handsell.core.errors import DataError
from handsell.migration.csv_files import import_csv
from handsell.migration.deployment_config import name_deployment, write_config
from handsell.migration.gorse.export import import_gorse
from handsell.migration.metarank import import_metarank
from handsell.migration.tables import ImportTables
from handsell.migration.tally import Tally

System = Literal["gorse", "metarank", "csv"]
COUNTS = "import.json"
GORSE_API = "gorse_api = true # clients of Gorse may go on calling /api (docs/migration.md)"


@dataclass(frozen=True)
class ImportSettings:
    """What the caller of an import says: names of columns, weights of types, and the deployment's name."""

    columns: Mapping[str, str] = field(default_factory=dict)  # canonical column → column or field of the source
    weights: Mapping[str, float] = field(default_factory=dict)  # by event type
    name: str | None = None


def import_source(system: System, source: str, folder: Path, settings: ImportSettings) -> tuple[Path, Tally]:
    """Write the tables and the config of a source; returns the config and the counts.

    Raises DataError for a folder that is not empty, and for a source without events.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"--out is {folder}: expected a new or an empty folder, got one with files; choose another")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    tables = ImportTables(folder)
    done = False
    try:
        _read(system, source, tables, settings.columns)
        tables.write()
        switches = [GORSE_API] if system == "gorse" else []
        config = write_config(tables, settings.name or name_deployment(folder.absolute()), settings.weights, switches)
        (folder / COUNTS).write_text(json.dumps(tables.tally.to_json(), indent=1), encoding="utf-8")
        done = True
    finally:
        tables.close()
        if not done:
            for path in folder.iterdir():
                path.unlink()
            if is_new:
                folder.rmdir()
    return config, tables.tally


def _read(system: System, source: str, tables: ImportTables, columns: Mapping[str, str]) -> None:
    if system == "gorse":
        import_gorse(source, tables)
    elif system == "metarank":
        import_metarank(source, tables, columns)
    else:
        import_csv(source, tables, columns)
