"""Steps behind the command line: read the data, run, print and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.protocols import datasets
from benchmarks.protocols.coordinate_search import Params
from benchmarks.protocols.datasets import ProtocolData
from benchmarks.protocols.lines import read_json
from benchmarks.protocols.models import ALL, select_models
from benchmarks.protocols.progress import Progress
from benchmarks.protocols.run import ProtocolRun, RunSettings
from benchmarks.protocols.table import build_json, print_table, write_json
from handsell.core.errors import ConfigError, DataError


def read_data(
    format: str, paths: Mapping[str, Path], masks_history: bool = True, ordered: bool | None = None, seed: int = 0
) -> ProtocolData:
    """Read the files of a format; `paths` by option. Raises DataError, with file and line, for a malformed file."""
    if format == "adjacency":
        return datasets.read_adjacency(paths["--train"], paths["--test"], paths.get("--validation"), ordered, seed)
    if format == "sequences":
        return datasets.read_sequences(paths["--data"], paths.get("--attributes"), masks_history)
    return datasets.read_sessions(paths["--train"], paths["--test"])


def read_chosen(path: Path) -> dict[str, Params]:
    """Read hyper-parameters by model from an earlier run's JSON."""
    found = read_json(path)
    try:
        return {row["model"]: dict(row["params"]) for row in found["rows"] if not row["error"]}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: expected a file written by --json, got one without {error}") from None


def measure(
    data: ProtocolData, settings: RunSettings, models: Sequence[str], blends: Sequence[Sequence[str]],
    json: Path | None, command: str,
) -> bool:  # fmt: skip
    """Run, print and write; return True if a model failed."""
    names, skipped = select_models(models, data)
    for blend in blends:
        select_models(blend, data)
        if len(set(blend)) < 2 or ALL in blend or "history" in blend:
            raise ConfigError(f"--blend {','.join(blend)}: expected two or more different models, other than history")
    progress = Progress(settings.k)
    if data.found_order:
        progress.log(str(data.found_order))
    for reason in skipped:
        progress.log(f"skipped: {reason}")
    results = ProtocolRun(data, settings, progress).run(names, blends)
    print_table(results, data, settings)
    if json:
        write_json(json, build_json(results, data, settings, command))
        progress.log(f"written to {json}")
    return any(result.error for result in results)
