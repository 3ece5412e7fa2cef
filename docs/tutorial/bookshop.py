"""Write the data of a small bookshop as CSV: `python docs/tutorial/bookshop.py FOLDER`.

500 customers looked at and bought 800 books in the last sixty days. Each customer prefers two of ten genres and some
authors, and the best-known books sell most. The shop is invented, and the same every time, but for its dates.
"""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

GENRES = ("crime", "fantasy", "romance", "history", "science", "travel", "poetry", "cooking", "art", "horror")
FIRST = (
    "The Silent", "A Distant", "The Last", "Our Hidden", "The Glass", "A Borrowed", "The Salt", "One Winter",
    "The Paper", "A Perfect", "The Other", "My Second", "The Long", "Every Lost", "The Blue", "A Careful", "The Wrong",
    "An Early", "The Iron", "A Small",
)  # fmt: skip
SECOND = (
    "Harbor", "Garden", "Letter", "Orchard", "Empire", "Stranger", "Compass", "River", "Lantern", "Archive", "Island",
    "Hour", "Bridge", "Mountain", "Mirror", "Signal", "Thief", "Summer", "Forest", "House",
)  # fmt: skip
GIVEN = ("Ada", "Bruno", "Clara", "Dana", "Emil", "Flora", "Goran", "Hanna", "Igor", "Jana")
FAMILY = ("Abel", "Brandt", "Costa", "Dahl", "Eriksen", "Fontaine", "Greco", "Holm", "Ivanov", "Jensen")
CUSTOMERS, BOOKS, DAYS = 500, 800, 60
Row = tuple[object, ...]


def write_shop(folder: Path) -> None:
    """Write books.csv and events.csv."""
    rng = np.random.default_rng(7)
    books = draw_books(rng)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "books.csv", ("sku", "title", "author", "genres", "price"), books)
    events = draw_events(rng, books)
    write_csv(folder / "events.csv", ("customer_id", "sku", "event", "created_at"), events)
    print(f"{folder}: {len(books)} books, {len(events):,} events of {CUSTOMERS} customers")


def draw_books(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for number in range(BOOKS):
        genre = number % len(GENRES)
        part = ", Part Two" if number >= BOOKS // 2 else ""
        title = f"{FIRST[number // 20 % 20]} {SECOND[(7 * number + number // 20) % 20]}{part}"
        author = f"{GIVEN[rng.integers(len(GIVEN))]} {FAMILY[genre]}"  # a family of authors writes one genre
        rows.append((f"B{number:04}", title, author, GENRES[genre], f"{rng.uniform(6, 30):.2f}"))
    return rows


def draw_events(rng: np.random.Generator, books: list[Row]) -> list[Row]:
    """Draw what customers looked at; they buy a third of it, and more of what they like."""
    fame = rng.permutation(1.0 / np.arange(1, BOOKS + 1) ** 0.6)
    genre = np.arange(BOOKS) % len(GENRES)
    author = np.unique([row[2] for row in books], return_inverse=True)[1]
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    rows: list[Row] = []
    for customer in range(CUSTOMERS):
        taste = np.full(len(GENRES), 0.05)
        taste[rng.choice(len(GENRES), 2, replace=False)] = (1.0, 0.6)
        liking = taste[genre] * rng.lognormal(0, 0.6, author.max() + 1)[author]
        chance = fame * liking
        viewed = rng.choice(BOOKS, min(8 + rng.geometric(1 / 30), 200), replace=False, p=chance / chance.sum())
        days = np.sort(DAYS * (1 - rng.beta(1.2, 1.6, len(viewed))))
        for book, ago in zip(viewed, days[::-1], strict=True):
            time = end - timedelta(days=float(ago))
            rows.append((f"C{customer:04}", books[book][0], "view", f"{time:%Y-%m-%d %H:%M:%S}"))
            if rng.random() < 0.2 + 0.4 * (liking[book] > 0.5):
                bought = time + timedelta(minutes=float(rng.uniform(2, 40)))
                rows.append((f"C{customer:04}", books[book][0], "purchase", f"{bought:%Y-%m-%d %H:%M:%S}"))
    return sorted(rows, key=lambda row: str(row[3]))


def write_csv(path: Path, names: tuple[str, ...], rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])


if __name__ == "__main__":
    write_shop(Path(sys.argv[1] if len(sys.argv) > 1 else "bookshop"))
