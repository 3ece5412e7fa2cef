"""MovieLens in its three layouts: exact counts on the real data, exact rows on tiny files."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from handsell.core.errors import DataError
from handsell.data.event_key import compute_event_keys
from handsell.data.readers.base import NULLABLE_EVENTS, read_all_events
from handsell.data.readers.detect import detect
from handsell.data.readers.movielens import MovieLens100K, MovieLensCSV, MovieLensDat
from handsell.data.readers.release_years import estimate_published_at, split_title_and_year
from handsell.data.schemas import TIME


def events(reader) -> pa.Table:
    return pa.Table.from_batches(list(read_all_events(reader)), NULLABLE_EVENTS)


def at(*date: int) -> datetime:
    return datetime(*date, tzinfo=UTC)


@pytest.mark.data
def test_latest_small_has_the_counts_that_grouplens_states(test_data):
    reader = detect(test_data("ml-latest-small"))
    log, items = events(reader), reader.items()
    assert isinstance(reader, MovieLensCSV) and reader.ordered
    assert len(log) == 100_004
    assert len(pc.unique(log["user_id"])) == 671
    assert len(pc.unique(log["item_id"])) == 9_066
    assert len(items) == 9_125
    assert len(np.unique(compute_event_keys(log.to_batches()[0]))) == len(log)
    assert pc.unique(log["type"]).to_pylist() == ["rating"]
    assert (pc.min(log["value"]).as_py(), pc.max(log["value"]).as_py()) == (0.5, 5.0)
    assert log.slice(0, 1).to_pylist()[0]["time"] == datetime.fromtimestamp(1_260_759_144, UTC)


@pytest.mark.data
def test_titles_years_genres_and_tags_of_latest_small(test_data):
    reader = detect(test_data("ml-latest-small"))
    items = {row["item_id"]: row for row in reader.items().to_pylist()}
    toy = items["1"]
    assert (toy["title"], toy["year"], toy["published_at"]) == ("Toy Story", 1995, at(1995, 1, 1))
    assert toy["tags"] == ["Adventure", "Animation", "Children", "Comedy", "Fantasy"]
    assert "sandra 'boring' bullock" in items["339"]["text"].split(", ")
    assert toy["creators"] is None


@pytest.mark.data
@pytest.mark.parametrize("name", ["ml-latest-small", "ml-100k"])
def test_no_film_is_rated_before_it_is_published(test_data, name):
    reader = detect(test_data(name))
    items, log = reader.items(), events(reader)
    place = pc.index_in(log["item_id"], items["item_id"].combine_chunks())
    born = items["published_at"].combine_chunks().take(place.combine_chunks())
    assert not pc.any(pc.greater(born, log["time"].combine_chunks())).as_py()


def test_dat_files_with_double_colons_latin1_and_colons_in_titles(tmp_path):
    (tmp_path / "ratings.dat").write_text("1::10::5::978300760\n1::20::3.5::978302109\n2::10::1::978301968\n")
    movies = "10::Star Wars: Episode IV (1977)::Action|Sci-Fi\n20::Misérables, Les (1995)::Drama\n"
    (tmp_path / "movies.dat").write_bytes(movies.encode("latin1"))
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072-12\n")
    reader = detect(tmp_path)
    assert isinstance(reader, MovieLensDat)
    log = events(reader).select(["user_id", "item_id", "value", "time"]).to_pylist()
    assert log[1] == {"user_id": "1", "item_id": "20", "value": 3.5, "time": at(2000, 12, 31, 22, 35, 9)}
    items = reader.items().to_pylist()
    assert [(i["title"], i["year"], i["tags"]) for i in items] == [
        ("Star Wars: Episode IV", 1977, ["Action", "Sci-Fi"]),
        ("Misérables, Les", 1995, ["Drama"]),
    ]
    assert reader.users().to_pylist()[1] == {
        "user_id": "2", "gender": "M", "occupation": "16", "zip_code": "70072-12", "age": 56,
    }  # fmt: skip


def test_u_data_with_genre_flags(tmp_path):
    (tmp_path / "u.data").write_text("196\t2\t3\t881250949\n186\t1\t4\t891717742\n")
    flags = ["0"] * 19
    flags[1] = flags[6] = "1"
    movie = "|".join(["1", 'Say "Amélie" (1995)', "01-Jan-1995", "", "http://x", *flags])
    (tmp_path / "u.item").write_bytes(
        (movie + "\n" + "|".join(["2", "unknown", "", "", "", "1", *["0"] * 18])).encode("latin1")
    )
    (tmp_path / "u.user").write_text("186|24|M|technician|85711\n")
    reader = detect(tmp_path)
    assert isinstance(reader, MovieLens100K)
    assert events(reader)["user_id"].to_pylist() == ["196", "186"]
    first, second = reader.items().to_pylist()
    assert (first["title"], first["tags"], first["year"]) == ('Say "Amélie"', ["Action", "Crime"], 1995)
    assert (second["title"], second["tags"], second["year"], second["published_at"]) == ("unknown", [], None, None)
    assert reader.users().to_pylist()[0]["age"] == 24


def write_csv(folder, ratings: str, movies: str = "movieId,title,genres\n1,A (2000),Drama\n"):
    (folder / "ratings.csv").write_text(ratings)
    (folder / "movies.csv").write_text(movies)
    return detect(folder)


@pytest.mark.parametrize(
    ("ratings", "said"),
    [
        ("userId,movieId,stars,timestamp\n1,1,3,5\n", ["ratings.csv", "missing: rating", "stars"]),
        (
            "userId,movieId,rating,timestamp\n1,1,3,5\n1,1,good,6\n",
            ["ratings.csv", "column rating", "a number", "'good'"],
        ),
        (
            "userId,movieId,rating,timestamp\n1,1,3,noon\n",
            ["ratings.csv", "column timestamp", "whole number", "'noon'"],
        ),
        ("userId,movieId,rating,timestamp\n1,1,3\n", ["ratings.csv", "not readable"]),
        ("", ["ratings.csv", "is empty"]),
    ],
)
def test_bad_ratings_are_named(tmp_path, ratings, said):
    reader = write_csv(tmp_path, ratings)
    with pytest.raises(DataError) as error:
        events(reader)
    assert all(word in str(error.value) for word in said), str(error.value)


def test_a_header_alone_gives_no_events(tmp_path):
    assert len(events(write_csv(tmp_path, "userId,movieId,rating,timestamp\n"))) == 0


def test_a_torn_line_of_movies_dat_is_named(tmp_path):
    (tmp_path / "ratings.dat").write_text("1::10::5::978300760\n")
    (tmp_path / "movies.dat").write_text("10::A (1999)::Drama\n11::B\n")
    with pytest.raises(DataError, match=r"movies.dat: line 2: expected 3 fields .* got 2"):
        detect(tmp_path).items()


def test_years_in_titles():
    titles = pa.array(["Heat (1995)", "Up", "Fall (The) (2006)  ", "Series (2006–2007)", "Odd (19)", None])
    title, year = split_title_and_year(titles)
    assert title.to_pylist() == ["Heat", "Up", "Fall (The)", "Series", "Odd (19)", None]
    assert year.to_pylist() == [1995, None, 2006, 2006, None, None]


def test_an_earlier_rating_moves_published_at():
    when = pa.array(np.array(["1999-06-05", "2001-02-03"], "M8[us]"), TIME)
    batch = pa.record_batch({"item_id": pa.array(["late", "fine"]), "time": when})
    found = estimate_published_at(
        pa.array(["late", "fine", "no year", "untouched"]), pa.array([2010, 1990, None, 1980]), [batch]
    )
    assert found.to_pylist() == [at(1999, 1, 1), at(1990, 1, 1), None, at(1980, 1, 1)]
