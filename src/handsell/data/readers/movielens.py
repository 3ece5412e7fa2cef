"""The MovieLens family in its three original layouts (GroupLens).

    ratings.csv movies.csv [tags.csv]        ml-latest-small, ml-20m, ml-25m, ml-32m
    ratings.dat movies.dat [users.dat]       ml-1m, ml-10m     fields separated by "::", Latin-1
    u.data u.item [u.user]                   ml-100k           fields separated by tab and "|", Latin-1

A rating is an event of type "rating" with the stars as its value. Genres become tags; user tags become the item's text,
as of the end of the log. There are no creators.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from handsell.core.errors import DataError
from handsell.data.readers import text_files
from handsell.data.readers.base import (
    SourcePart,
    build_event_batch,
    build_items_table,
    build_users_table,
    empty_users,
    read_all_events,
    require_file,
    seconds_to_time,
)
from handsell.data.readers.release_years import estimate_published_at, split_title_and_year
from handsell.data.schemas import STRINGS

RATING = {"user": pa.string(), "item": pa.string(), "rating": pa.float32(), "time": pa.int64()}
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
NO_GENRE = ("(no genres listed)", "unknown", "")


@dataclass(frozen=True)
class MovieLensFolder:
    """The part that all layouts have in common; `names` are the files, ratings first."""

    folder: Path
    ordered: ClassVar[bool] = True
    names: ClassVar[tuple[str, ...]]

    @property
    def source(self) -> str:
        return f"movielens:{self.folder}"

    def files(self) -> list[Path]:
        return [self.folder / name for name in self.names if (self.folder / name).exists()]

    def parts(self) -> list[SourcePart]:
        return [SourcePart(0, str(self.folder / self.names[0]))]


@dataclass(frozen=True)
class MovieLensCSV(MovieLensFolder):
    names: ClassVar[tuple[str, ...]] = ("ratings.csv", "movies.csv", "tags.csv")

    def events(self, part: SourcePart) -> Iterator[pa.RecordBatch]:
        columns = {"userId": pa.string(), "movieId": pa.string(), "rating": pa.float32(), "timestamp": pa.int64()}
        yield from _convert_ratings(text_files.read_batches(Path(part.path), columns))

    def items(self) -> pa.Table:
        text = dict.fromkeys(("movieId", "title", "genres"), pa.string())
        movies = text_files.read_table(self.folder / "movies.csv", text).combine_chunks()
        ids = movies["movieId"].combine_chunks()
        return _build_movies(
            self, ids, movies["title"], _split_genres(movies["genres"]), {"text": self._read_tags(ids)}
        )

    def users(self) -> pa.Table:
        return empty_users()

    def _read_tags(self, ids: pa.Array) -> pa.Array:
        """Join the distinct user tags of each movie by commas."""
        path = self.folder / "tags.csv"
        if not path.exists():
            return pa.nulls(len(ids), pa.string())
        tags = text_files.read_table(path, {"movieId": pa.string(), "tag": pa.string()}).drop_null()
        lists = tags.group_by("movieId", use_threads=False).aggregate([("tag", "distinct")])
        joined = pc.binary_join(lists["tag_distinct"].combine_chunks(), ", ")
        return pc.take(joined, pc.index_in(ids, lists["movieId"].combine_chunks()))


@dataclass(frozen=True)
class MovieLensDat(MovieLensFolder):
    names: ClassVar[tuple[str, ...]] = ("ratings.dat", "movies.dat", "users.dat")

    def events(self, part: SourcePart) -> Iterator[pa.RecordBatch]:
        # with the separator ":", "::" gives an empty column between two columns
        names = ("user", "_1", "item", "_2", "rating", "_3", "time")
        path = require_file(Path(part.path), "UserID::MovieID::Rating::Timestamp")
        yield from _convert_ratings(
            text_files.read_batches(path, RATING, delimiter=":", names=names, encoding="latin1")
        )

    def items(self) -> pa.Table:
        ids, titles, genres = _read_double_colon(self.folder / "movies.dat", 3)
        return _build_movies(self, pa.array(ids), pa.array(titles), _split_genres(pa.array(genres)))

    def users(self) -> pa.Table:
        if not (self.folder / "users.dat").exists():
            return empty_users()
        ids, gender, age, occupation, zip_code = _read_double_colon(self.folder / "users.dat", 5)
        columns = {"user_id": ids, "gender": gender, "occupation": occupation, "zip_code": zip_code}
        return build_users_table(
            {**{k: pa.array(v) for k, v in columns.items()}, "age": _to_whole_numbers(pa.array(age))}
        )


@dataclass(frozen=True)
class MovieLens100K(MovieLensFolder):
    names: ClassVar[tuple[str, ...]] = ("u.data", "u.item", "u.user")

    def events(self, part: SourcePart) -> Iterator[pa.RecordBatch]:
        path = require_file(Path(part.path), "user, item, rating and timestamp separated by tabs")
        yield from _convert_ratings(text_files.read_batches(path, RATING, delimiter="\t", names=tuple(RATING)))

    def items(self) -> pa.Table:
        path = require_file(self.folder / "u.item", "movie id | title | release date | … | 19 genre flags")
        flags = {name: pa.string() for name in GENRES_100K}
        names = ("id", "title", "released", "video", "url", *flags)
        columns = {"id": pa.string(), "title": pa.string(), **flags}
        rows = text_files.read_table(path, columns, delimiter="|", names=names, encoding="latin1", quotes=False)
        on = [[g for g in GENRES_100K if row[g] == "1" and g not in NO_GENRE] for row in rows.to_pylist()]
        return _build_movies(self, rows["id"].combine_chunks(), rows["title"], pa.array(on, STRINGS))

    def users(self) -> pa.Table:
        path = self.folder / "u.user"
        if not path.exists():
            return empty_users()
        names = ("user_id", "age", "gender", "occupation", "zip_code")
        columns = dict.fromkeys(names, pa.string())
        rows = text_files.read_table(path, columns, delimiter="|", names=names, encoding="latin1", quotes=False)
        return build_users_table({**{n: rows[n] for n in names}, "age": _to_whole_numbers(rows["age"])})


MovieLens = MovieLensCSV | MovieLensDat | MovieLens100K
LAYOUTS: tuple[type[MovieLens], ...] = (MovieLensCSV, MovieLensDat, MovieLens100K)


def _convert_ratings(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Convert user, item, rating and seconds to canonical events of type "rating"."""
    for user, item, rating, seconds in (batch.columns for batch in batches):
        kind = pa.repeat(pa.scalar("rating"), len(user))
        time = seconds_to_time(seconds)
        yield build_event_batch({"user_id": user, "item_id": item, "type": kind, "time": time, "value": rating})


def _build_movies(
    reader: MovieLens,
    ids: pa.Array,
    titles: pa.Array | pa.ChunkedArray,
    tags: pa.Array,
    more: dict[str, pa.Array] | None = None,
) -> pa.Table:
    title, year = split_title_and_year(titles)
    when = estimate_published_at(ids, year, read_all_events(reader))
    return build_items_table(
        {"item_id": ids, "title": title, "tags": tags, "published_at": when, "year": year, **(more or {})}
    )


def _split_genres(genres: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Split "Action|Comedy" into ["Action", "Comedy"]."""
    rows = [[g for g in (text or "").split("|") if g not in NO_GENRE] for text in genres.to_pylist()]
    return pa.array(rows, STRINGS)


def _read_double_colon(path: Path, width: int) -> list[tuple[str, ...]]:
    """Read the columns of a small file separated by "::"; fields may contain single colons."""
    text = require_file(path, f"{width} fields separated by '::'").read_text(encoding="latin1")
    rows = [line.split("::") for line in text.splitlines() if line]
    if not rows:
        raise DataError(f"{path} is empty: expected lines of {width} fields separated by '::'; replace the file")
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise DataError(
                f"{path}: line {number}: expected {width} fields separated by '::', got {len(row)}: "
                f"{'::'.join(row)[:80]!r}; correct that line"
            )
    return list(zip(*rows, strict=True))


def _to_whole_numbers(text: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Convert text to int32, null where it is not a whole number."""
    good = pc.match_substring_regex(text, r"^\d{1,9}$")
    return pc.cast(pc.if_else(good, text, None), pa.int32())
