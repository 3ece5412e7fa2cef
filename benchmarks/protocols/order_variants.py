"""Whether the order of lines is recognized: each file as it is, and its lines in other orders.

python -m benchmarks line_order gowalla/train.txt Beauty.txt
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.protocols.datasets import ItemNumbers
from benchmarks.protocols.line_order import find_line_order
from benchmarks.protocols.lines import read_users
from benchmarks.report import describe_machine

Lines = Sequence[np.ndarray]

app = typer.Typer(add_completion=False)


def build_variants(lines: Lines, rng: np.random.Generator) -> dict[str, Lines]:
    """Return the lines in other orders, which are no history; `lines` have distinct items."""
    count = Counter(item for line in lines for item in line.tolist())

    def sort_by(key: Callable) -> Lines:
        return [np.array(sorted(line.tolist(), key=key), np.int32) for line in lines]

    return {
        "shuffled": [rng.permutation(line) for line in lines],
        "by number": sort_by(int),
        "by name": sort_by(str),
        "most popular last": sort_by(lambda item: (count[item], item)),
        "most popular first": sort_by(lambda item: (-count[item], item)),
        "hash table": [np.array(list(set(line.tolist())), np.int32) for line in lines],
    }


@app.command()
def measure(
    files: Annotated[list[Path], typer.Argument(help="lines of `user item …`")],
    seed: Annotated[int, typer.Option(help="of the shuffling and of the lines that are drawn")] = 0,
) -> None:
    """Print what is found of each file and of each other order of its lines."""
    table = Table("file", "order", "found", "recency", "places explained by the item", "lines", "CPU s")
    for path in files:
        users = read_users(path)
        number = ItemNumbers(users.values())
        lines = [number(list(dict.fromkeys(line))) for line in users.values()]
        for name, variant in {"as it is": lines, **build_variants(lines, np.random.default_rng(seed))}.items():
            begun = time.process_time()
            found = find_line_order(variant, number.size, seed)
            spent = time.process_time() - begun
            verdict = "time" if found.is_time else "none"
            figures = str(found.recency), str(found.fixed), f"{found.lines:,}", f"{spent:.1f}"
            table.add_row(f"{path.parent.name}/{path.name}", name, verdict, *figures)
    console = Console(width=150)
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in describe_machine().items() if name != "libraries"))


def main() -> None:
    app(prog_name="python -m benchmarks line_order")


if __name__ == "__main__":
    main()
