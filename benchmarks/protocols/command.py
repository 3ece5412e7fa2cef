"""Behind the command line: files → data set → table and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.protocols import datasets
from benchmarks.protocols import models as contenders
from benchmarks.protocols.coordinate_search import Params
from benchmarks.protocols.datasets import Yardstick
from benchmarks.protocols.lines import read_json
from benchmarks.protocols.progress import Progress
from benchmarks.protocols.run import Run, Settings
from benchmarks.protocols.table import as_json, print_table, write_json
from handsell.core.errors import ConfigError, DataError


def read(format: str, paths: Mapping[str, Path], masks_history: bool = True) -> Yardstick:
    """`paths` by option; raises DataError that names file, line, what was expected and what was received."""
    if format == "adjacency":
        return datasets.adjacency(paths["--train"], paths["--test"], paths.get("--validation"))
    if format == "sequences":
        return datasets.sequences(paths["--data"], paths.get("--attributes"), masks_history)
    return datasets.sessions(paths["--train"], paths["--test"])


def given(path: Path) -> dict[str, Params]:
    """Hyper-parameters by model, of an earlier run's JSON."""
    found = read_json(path)
    try:
        return {row["model"]: dict(row["params"]) for row in found["rows"] if not row["error"]}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is not what --json writes ({error!r} is missing): give the file of a run") from None


def measure(
    yard: Yardstick, settings: Settings, models: Sequence[str], blends: Sequence[Sequence[str]],
    json: Path | None, command: str,
) -> bool:  # fmt: skip
    """Runs, prints and writes; true where a model failed."""
    names, left_out = contenders.chosen(models, yard)
    for blend in blends:
        contenders.chosen(blend, yard)
        if len(set(blend)) < 2 or contenders.EVERY in blend or "history" in blend:
            raise ConfigError(f"--blend {','.join(blend)}: expected two or more different models, other than history")
    progress = Progress(settings.k)
    for why in left_out:
        progress.say(f"left out: {why}")
    rows = Run(yard, settings, progress)(names, blends)
    print_table(rows, yard, settings)
    if json:
        write_json(json, as_json(rows, yard, settings, command))
        progress.say(f"written to {json}")
    return any(row.error for row in rows)
