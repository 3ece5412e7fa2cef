"""Tables in random CSV dialects and notations of time through the whole way: doctor, data step, HTTP answers."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_whole_way import END, ITEMS, TOML, USERS, check_answers, id_lists, publish

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config, load_config
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.data.interaction_parts import list_parts, read_part
from handsell.doctor.inspection import examine

EAST = timezone(timedelta(hours=5, minutes=30))
NOTATIONS: dict[str, Callable[[int], str]] = {  # of Unix seconds
    "iso": lambda s: f"{datetime.fromtimestamp(s, UTC):%Y-%m-%dT%H:%M:%SZ}",
    "compact": lambda s: f"{datetime.fromtimestamp(s, UTC):%Y%m%dT%H%M%SZ}",
    "postgres": lambda s: f"{datetime.fromtimestamp(s, UTC):%Y-%m-%d %H:%M:%S}+00",
    "bigquery": lambda s: f"{datetime.fromtimestamp(s, UTC):%Y-%m-%d %H:%M:%S.%f} UTC",
    "offset": lambda s: f"{datetime.fromtimestamp(s, EAST):%Y-%m-%dT%H:%M:%S%z}",
    "seconds": str,
    "milliseconds": lambda s: str(s * 1_000),
    "microseconds": lambda s: str(s * 1_000_000),
    "nanoseconds": lambda s: str(s * 1_000_000_000),
}
QUOTES = """
[data.tables.TABLE.csv]
quote = '"'
escape = '"'
"""


@dataclass(frozen=True)
class Form:
    """How a table is written."""

    delimiter: str
    line_end: str
    quoting: int
    encoding: str
    packed: bool
    decimal: str
    notation: str

    def write(self, folder: Path, name: str, rows: list[list[str]]) -> str:
        """Write the table; return the name of its file."""
        text = io.StringIO()
        csv.writer(text, delimiter=self.delimiter, lineterminator=self.line_end, quoting=self.quoting).writerows(rows)
        data = text.getvalue().encode(self.encoding)
        file = f"{name}.csv.gz" if self.packed else f"{name}.CSV"
        (folder / file).write_bytes(gzip.compress(data) if self.packed else data)
        return file


FORMS = st.builds(
    Form,
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.booleans(),
    st.sampled_from(".,"),
    st.sampled_from(list(NOTATIONS)),
)


@settings(max_examples=4, deadline=None, phases=[Phase.generate])
@given(id_lists(USERS), id_lists(ITEMS), FORMS, FORMS, st.integers(0, 2**32))
def test_tables_in_any_form_give_the_rows_and_answers_that_they_hold(users, items, form, item_form, seed):
    rng, n = np.random.default_rng(seed), 40 * USERS
    user, item = np.arange(n) % USERS, np.concatenate([np.arange(ITEMS), rng.integers(0, ITEMS, n - ITEMS)])
    time = END // 1_000_000 - rng.choice(30 * DAY_US // 1_000_000, n, replace=False) - 1
    price, text = rng.integers(1, 99, ITEMS) + 0.25, [f'two\nlines, "{k}"; {k}|' for k in range(ITEMS)]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setenv("HANDSELL_HOME", name)
        write = NOTATIONS[form.notation]
        log = [[users[u], items[i], write(int(t))] for u, i, t in zip(user, item, time, strict=True)]
        events = form.write(folder, "events", [["user_id", "item_id", "time"], *log])
        prices = [str(p).replace(".", item_form.decimal) for p in price]
        described = [list(row) for row in zip(items, items, prices, text, strict=True)]
        table = item_form.write(folder, "items", [["item_id", "title", "price", "note"], *described])
        quotes = "".join(QUOTES.replace("TABLE", part) for part in ("events", "items"))
        toml = TOML.replace("events.parquet", events).replace("items.parquet", table)
        toml = toml.replace("[events.types]", f"{quotes}[events.types]")
        (folder / "shop.toml").write_text(toml)
        report = examine(load_config(folder / "shop.toml"))
        assert report.ok, report.problems
        world = publish(folder)
        number = decimal_is_a_number(item_form)
        metadata = {
            id_: {"title": id_, "price": p if number else prices[k], "note": text[k]}
            for k, (id_, p) in enumerate(zip(items, price.tolist(), strict=True))
        }
        asyncio.run(check_answers(world, users, metadata))
        rows = [(users[u], items[i], t) for u, i, t in zip(user, item, time.tolist(), strict=True)]
        assert read_log(world.config) == sorted(rows)


def decimal_is_a_number(form: Form) -> bool:
    """Decimal commas are numbers where the delimiter is no comma."""
    return form.decimal == "." or form.delimiter != ","


def read_log(config: Config) -> list[tuple[str, str, int]]:
    """User, item and time in seconds of all interactions that the data step has written."""
    layout = Layout(config.state)
    names = [Vocabulary.load(layout.catalog / part) for part in ("users", "items")]
    tables = [read_part(path) for path in list_parts(layout.interactions)]
    rows = []
    for table in tables:
        user, item = (v.ids(table[c].to_numpy()) for v, c in zip(names, ("user", "item"), strict=True))
        rows += zip(user, item, (np.asarray(table["time"].cast("int64")) // 1_000_000).tolist(), strict=True)
    return sorted(rows)
