"""What the operations of the event store need of a database: SQL with `?` marks inside one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

TABLES = ("events", "slates", "catalog_changes", "identities", "blocks", "api_keys", "audit")  # that have offsets


class Transaction(Protocol):
    """One transaction. No other transaction of a writer runs meanwhile, in any process."""

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        """Return the rows of a query."""
        ...

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; returns the number of rows that it changed."""
        ...

    def insert(self, table: str, names: Sequence[str], rows: Sequence[tuple]) -> None:
        """Insert rows of a table's columns."""
        ...

    def among(self, column: str, values: Sequence[Any]) -> tuple[str, Any]:
        """Return a condition that a column has one of the values, and the parameter of its one mark."""
        ...

    def allocate(self, table: str, count: int) -> range:
        """Return the next offsets of a table. The transaction stores them, so no offset is given twice."""
        ...
