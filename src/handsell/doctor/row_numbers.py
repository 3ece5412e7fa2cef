"""Number the rows of examples as their files do."""

from __future__ import annotations

from collections.abc import Sequence

from handsell.data.readers.base import Reader
from handsell.data.readers.tables import Tables
from handsell.doctor.doctor_report import Finding

NUMBERS = {"row": ("file", "row", "line"), "like_row": ("like_file", "like_row", "like_line")}


def number_rows(reader: Reader, problems: Sequence[Finding]) -> None:
    """Replace row numbers in examples, which count all rows of a table, by file, row in the file, and line in CSV."""
    if not isinstance(reader, Tables):
        return
    for table in {problem.table for problem in problems}:
        examples = [example for problem in problems if problem.table == table for example in problem.examples]
        rows = sorted({example[key] - 1 for example in examples for key in NUMBERS if key in example})
        places = reader.locate_rows(table, rows) if rows else {}
        for example in examples:
            old = dict(example)
            example.clear()
            for key, value in old.items():
                place = places.get(value - 1) if key in NUMBERS else None
                example.update({key: value} if place is None else dict(zip(NUMBERS[key], place, strict=True)))
            for key in [key for key, value in example.items() if value is None]:
                del example[key]
