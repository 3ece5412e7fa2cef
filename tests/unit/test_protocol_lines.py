"""QueryParser the files of the protocols; errors name file and line."""

import pytest
from benchmarks.protocols.lines import (
    compute_fingerprint,
    read_attributes,
    read_rows,
    read_users,
    read_validation,
    sort_ids,
)

from handsell.core.errors import DataError


@pytest.fixture
def file(tmp_path):
    def write(text: str | bytes, name: str = "train.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_users_with_their_items_in_order_and_blank_lines_left_out(file):
    assert read_users(file("7 3 1 2\n\nu9 3\t5\n8\n")) == {"7": ["3", "1", "2"], "u9": ["3", "5"], "8": []}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3\n4,5,6\n", ["line 2", "user item item …", "'4,5,6'"]),
        ('1 2\n\n{"a": [1]}\n', ["line 3", "user item item …"]),
        ("1 2\n1 3\n", ["user 1 has two lines"]),
        ("\n\n", ["is empty"]),
        (b"\xff\xfe\x00", ["is not text"]),
    ],
)
def test_errors_name_file_and_line(file, text, words):
    path = file(text)
    with pytest.raises(DataError) as error:
        read_users(path)
    assert all(word in str(error.value) for word in [str(path), *words])


def test_a_line_that_is_too_short(file):
    with pytest.raises(DataError, match=r"train.txt, line 2: expected `item … target`, got only '4'"):
        read_rows(file("1 2\n4\n"), "item … target", at_least=2)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"none.txt does not exist: expected a file with lines of `user item item …`"):
        read_users(tmp_path / "none.txt")


def test_validation_in_lines_in_a_json_object_and_in_a_json_list_by_user_number(file):
    expected = {"0": ["5", "6"], "1": []}
    for text in ("0 5 6\n1\n", '{"0": [5, 6], "1": []}', "[[5, 6], []]"):
        assert read_validation(file(text)) == expected


def test_invalid_json_and_json_of_another_shape(file):
    with pytest.raises(DataError, match="line 2: invalid JSON"):
        read_validation(file("[[1],\n[2"))
    with pytest.raises(DataError, match=r"expected a list of items for each user, got '3' for 0"):
        read_validation(file("[3]"))
    with pytest.raises(DataError, match="JSON object of item → list of attributes"):
        read_attributes(file("[1, 2]"))
    assert read_attributes(file('{"4": [1, "red"]}')) == {"4": ["1", "red"]}


def test_ids_sort_as_numbers_where_all_are_numbers():
    assert sort_ids({"10", "9", "2"}) == ["2", "9", "10"]
    assert sort_ids({"b10", "9", "a"}) == ["9", "a", "b10"]


def test_the_fingerprint_is_of_the_contents(file):
    one, same, other = file("1 2", "a"), file("1 2", "b"), file("1 3", "c")
    assert compute_fingerprint([one]) == compute_fingerprint([same]) != compute_fingerprint([other])
    assert compute_fingerprint([one, other]) != compute_fingerprint([other, one])
