"""CSV files of all dialects and encodings come back as they were written, or end in one clear error."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from handsell.core.errors import DataError
from handsell.data.config import CsvFormat, TablesConfig
from handsell.data.readers.base import read_all_events
from handsell.data.readers.formats import encoding
from handsell.data.readers.formats.csv_table import CsvTable
from handsell.data.readers.tables import Tables

NAMES = ("user_id", "item_id", "note")


def read(path, wanted=NAMES, **options) -> list[tuple]:
    table = CsvTable(path, CsvFormat(**options), wanted)
    batches = list(table.read(table.names, 1000))
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def write(folder, content: str | bytes, name="t.csv", encoding="utf-8") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def items(folder, **table) -> pa.Table:
    config = {"events": {"path": "log.csv"}, "items": {"path": "t.csv", **table}}
    return Tables(folder, TablesConfig.model_validate(config), ("click",)).items()


VALUES = st.text(st.characters(codec="cp1252", exclude_characters="\0\x1a"), min_size=1, max_size=12)
WIDE = st.text(st.characters(exclude_categories=("Cs", "Cn", "Co"), exclude_characters="\0"), min_size=1, max_size=12)


WORDS = [
    "lamp",
    "Café",
    '5" pipe',
    '24"',
    'say "hi"',
    "don't",
    "'tis",
    "a, b",
    "x;y",
    "a|b",
    "line\nbreak",
    "crlf\r\nin",
]
WORDS += ["#1", "C:\\", "7", "007", "1,5", "Straße", '"quoted"', '{"a": 1}', "end\\"]
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)


@st.composite
def tables(draw, values=None):
    """Return rows, and the bytes of the file that a common program would write for them; `values`: usual ones."""
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]))
    value = values if values is not None else VALUES if encoding == "cp1252" else WIDE
    rows = draw(st.lists(st.tuples(value, value, value), min_size=1, max_size=6))
    backslash = draw(st.booleans())
    delimiter, end = draw(st.sampled_from([",", ";", "\t", "|"])), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    always = draw(st.booleans())

    def form(value: str) -> str:
        if not always and not set(value) & set(f'{delimiter}"\\\r\n#'):
            return value
        text = value.replace("\\", "\\\\").replace('"', '\\"') if backslash else value.replace('"', '""')
        return f'"{text}"'

    if values is not None and backslash:  # a backslash at the end of a value would be ambiguous
        rows = [tuple(value.replace("\\", "/") for value in row) for row in rows]
    data = "".join(delimiter.join(map(form, row)) + end for row in [NAMES, *rows]).encode(encoding)
    packed = draw(st.booleans())
    options = {"escape": "\\" if backslash else '"'}
    if encoding == "cp1252":
        options["encoding"] = "cp1252"
    return rows, gzip.compress(data) if packed else data, "t.csv.gz" if packed else "t.csv", options


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables())
def test_a_table_written_in_any_dialect_is_read_back(tmp_path, written):
    rows, data, name, options = written
    assert read(write(tmp_path, data, name), **options) == rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables(SENTENCES))
def test_usual_values_in_any_dialect_are_read_back_without_settings(tmp_path, written):
    rows, data, name, _ = written
    assert read(write(tmp_path, data, name)) == rows


HEADER = "user_id,item_id,note\n"


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("user_id\titem_id\tnote\nu\ti\tone, two\n", [("u", "i", "one, two")]),
        ("user_id|item_id|note\nu|i|a;b\n", [("u", "i", "a;b")]),
        ("user_id\x01item_id\x01note\nu\x01i\x01a\n", [("u", "i", "a")]),
        (HEADER + 'u,i,"5"" pipe"\n', [("u", "i", '5" pipe')]),
        (HEADER + 'u,i,"say \\"hi\\", now"\n', [("u", "i", 'say "hi", now')]),
        (HEADER + 'u,i,"24\\""\nv,j,"a, b"\n', [("u", "i", '24"'), ("v", "j", "a, b")]),
        (HEADER.replace("\n", "\r") + 'u,i,"24\\""\r', [("u", "i", '24"')]),
        (HEADER + 'u,i,"24\\""', [("u", "i", '24"')]),
        (HEADER + 'u,i,"C:\\"\nu,j,"D:\\"\n', [("u", "i", "C:\\"), ("u", "j", "D:\\")]),
        (HEADER + 'u,i,5" pipe\n', [("u", "i", '5" pipe')]),
        (HEADER + "u,i,'tis\nu,j,don't\n", [("u", "i", "'tis"), ("u", "j", "don't")]),
        ("user_id,item_id,note\nu,i,'a, b'\nu,j,'c'\n", [("u", "i", "a, b"), ("u", "j", "c")]),
        (HEADER.replace("\n", "\r\n") + 'u,i,"a\nb"\r\nu,j,"c\r\nd"\r\n', [("u", "i", "a\nb"), ("u", "j", "c\r\nd")]),
        (HEADER + 'u,i,"a"\r\nu,j,b\n', [("u", "i", "a"), ("u", "j", "b")]),
        ("user_id,item_id,note\ru,i,a\r", [("u", "i", "a")]),
        ("user_id,item_id,note\r\n\r\nu,i,a\r\n\r\n", [("u", "i", "a")]),
        ("user_id,item_id,note,\nu,i,a,\n", [("u", "i", "a")]),
        (HEADER + "u,i,a,\nu,j,b,\n", [("u", "i", "a"), ("u", "j", "b")]),
        ('"user_id","item_id","note"\nu,i,a\n', [("u", "i", "a")]),
        ("sep=;\nuser_id;item_id;note\nu;i;a,b\n", [("u", "i", "a,b")]),
        ('# exported "today, by x\n#\nuser_id,item_id,note\r\nu,i,"a\r\nb"\r\n', [("u", "i", "a\r\nb")]),
        (HEADER + "#u,i,#1\n", [("#u", "i", "#1")]),
        (HEADER, []),
        (HEADER.strip(), []),
        (HEADER + "007,1.50,2026\n", [("007", "1.50", "2026")]),
        (HEADER + ' u , i,"x" \n'.replace('"x" ', "x "), [(" u ", " i", "x ")]),
    ],
)
def test_dialects_are_detected(tmp_path, content, rows):
    assert read(write(tmp_path, content)) == rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"])
def test_encodings_are_detected(tmp_path, encoding):
    rows = [("u", "i", "Café grün"), ("v", "j", "Straße")]
    content = HEADER + "".join(",".join(row) + "\n" for row in rows)
    assert read(write(tmp_path, content, encoding=encoding)) == rows


@pytest.mark.parametrize("size", [16, 18, 20, 22, 24])
def test_quotes_are_detected_wherever_the_file_is_cut_into_chunks(tmp_path, monkeypatch, size):
    monkeypatch.setattr(encoding, "CHUNK", size)
    assert read(write(tmp_path, HEADER + 'u,i,"24\\""\r\n')) == [("u", "i", '24"')]
    assert read(write(tmp_path, HEADER + 'u,i,"C:\\"\nu,j,"24"""\n')) == [("u", "i", "C:\\"), ("u", "j", '24"')]


@pytest.mark.parametrize("form", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_detected_in_any_script(tmp_path, form):
    row = ("用" * 200, "书", "目录" * 200)
    assert read(write(tmp_path, HEADER + ",".join(row) + "\n", encoding=form)) == [row]


def test_a_late_letter_decides_the_encoding_of_the_whole_file(tmp_path):
    content = HEADER + "u,i,a\n" * 100_000 + "u,i,é\n"
    assert read(write(tmp_path, content, encoding="latin-1"))[-1] == ("u", "i", "é")


def test_other_encodings_can_be_named(tmp_path):
    path = write(tmp_path, HEADER + "u,i,Привет мир\n", encoding="cp1251")
    with pytest.raises(DataError, match=r"line 2, column note: expected text in UTF-8.*csv = \{ encoding"):
        read(path)
    assert read(path, encoding="cp1251") == [("u", "i", "Привет мир")]
    with pytest.raises(ValidationError, match="expected a Python codec"):
        CsvFormat(encoding="klingon")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEADER.encode() + 'u,"i\n\n",é\nu,i,'.encode() + b"\xe9\n", "line 5, column note: expected text in UTF-8"),
        (HEADER.encode() + b"u,i\0i,a\n", "line 2, column item_id: .*got a NUL character"),
        (HEADER.encode() + b"u,i,\x81\n", "line 2, column note: .*neither UTF-8 nor Windows-1252"),
        (HEADER.encode() + b'u,"i\ni",a\nu,i\n', "line 4, after column item_id: expected 3 columns, got 2"),
        (HEADER.encode() + b"u,i,a\nu,i,a,b\n", "line 3, after column note: expected 3 columns, got 4"),
        (
            HEADER.encode() + b'u,i,a\nu,"i,a\nu,i,a\n',
            "line 3, column item_id: expected a value in quotes, got an open quote",
        ),
        (HEADER.encode() + b'u,"i"i,a\n', "line 2, column item_id: expected a value in quotes, got text after"),
        (b"PK\x03\x04....", "got an Excel or zip file"),
        (b"", "is empty: expected a header line"),
        (b"\n \n", "is empty: expected a header line"),
        (b"user_id,item_id,note,note\nu,i,a,b\n", "several named note"),
    ],
)
def test_what_cannot_be_read_is_one_error_with_file_line_and_column(tmp_path, content, said):
    with pytest.raises(DataError, match=r"t\.csv.*" + said):
        read(write(tmp_path, content))


def test_a_damaged_gzip_file_is_an_error(tmp_path):
    path = write(tmp_path, gzip.compress(HEADER.encode() * 10_000)[:-20], "t.csv.gz")
    with pytest.raises(DataError, match=r"t\.csv\.gz cannot be read"):
        read(path)


def test_options_override_what_is_detected(tmp_path):
    path = write(tmp_path, "report of today\n//x,y,z\nuser_id^item_id^note\nu^i^a,b\n//c\nv^j^c\n")
    options = {"delimiter": "^", "skip_lines": 1, "comment": "/"}
    assert read(path, **options) == [("u", "i", "a,b"), ("v", "j", "c")]
    bare = write(tmp_path, "u;i;'a\nv;j;b\n")
    assert read(bare, delimiter=";", quote="", names=NAMES) == [("u", "i", "'a"), ("v", "j", "b")]


def test_paths_with_characters_that_are_patterns(tmp_path):
    assert read(write(tmp_path, HEADER + "u,i,a\n", "my [1]*?{x} 'q'.csv")) == [("u", "i", "a")]


def test_without_a_header_the_error_shows_the_first_line(tmp_path):
    write(tmp_path, "u1,i1,1777636800\nu2,i2,1777636801\n", "log.csv")
    source = Tables(tmp_path, TablesConfig.model_validate({"events": {"path": "log.csv"}}), ("click",))
    with pytest.raises(DataError, match=r"expected a column 'user_id' for user_id, got: u1, i1, 1777636800.*csv = "):
        list(read_all_events(source))


def test_names_of_columns_match_without_spaces_and_case(tmp_path):
    write(tmp_path, '" Item_ID ",TITLE,Price,price\ni,Lamp,1,2\n')
    table = items(tmp_path)
    assert table["title"].to_pylist() == ["Lamp"]
    assert table["Price"].to_pylist() == [1] and table["price"].to_pylist() == [2]


def test_parts_of_a_table_have_their_own_order_encoding_and_dialect(tmp_path):
    (tmp_path / "items").mkdir()
    write(tmp_path, "item_id,title,price\na,Café,1.5\n", "items/1.csv", "utf-8-sig")
    write(tmp_path, "price;title;item_id\n2,5;Café;b\n", "items/2.csv", "cp1252")
    write(tmp_path, "title\titem_id\nCafé\tc\n", "items/3.CSV", "utf-16")
    (tmp_path / "items/4.csv.gz").write_bytes(gzip.compress(b"item_id,title,price\n"))
    pq.write_table(pa.table({"price": [3.5], "item_id": ["e"]}), tmp_path / "items/5.parquet")
    table = items(tmp_path, path="items")
    assert table["item_id"].to_pylist() == ["a", "b", "c", "e"]
    assert table["title"].to_pylist() == ["Café"] * 3 + [None]
    assert table["price"].to_pylist() == [1.5, 2.5, None, 3.5]


TYPES = [
    (["7", "12", ""], [7, 12, None]),
    (["7", "12A", "sale"], ["7", "12A", "sale"]),
    (["007", "12"], ["007", "12"]),
    (["+49", "12"], ["+49", "12"]),
    (["7", "1.5", "-0.5"], [7.0, 1.5, -0.5]),
    (["1e-05", "0.5"], [1e-05, 0.5]),
    (["1E5", "2E3"], ["1E5", "2E3"]),
    (["true", "False"], [True, False]),
    (["12345678901234567890", "1"], ["12345678901234567890", "1"]),
    (["2026-05-01", "2026-05-02"], ["2026-05-01", "2026-05-02"]),
    (["1,5", "2,5"], ["1,5", "2,5"]),
    (["inf", "1.5"], [float("inf"), 1.5]),
]


@pytest.mark.parametrize(("texts", "values"), TYPES)
def test_other_columns_have_a_type_only_if_all_values_are_written_as_such(tmp_path, texts, values):
    lines = "".join(f'{k},"{text}"\n' for k, text in enumerate(texts))
    write(tmp_path, f"item_id,shelf\n{lines}")
    assert items(tmp_path)["shelf"].to_pylist() == values


@pytest.mark.parametrize("early", ["", "7"])
def test_a_column_that_is_text_late_is_text_with_every_value_as_it_stands(tmp_path, early):
    write(tmp_path, "item_id,shelf\n" + "".join(f"{k},{early}\n" for k in range(40_000)) + "x,12A\n")
    shelf = items(tmp_path)["shelf"].to_pylist()
    assert (shelf[0], shelf[-1]) == (early or None, "12A")


def test_decimal_commas_beside_another_delimiter(tmp_path):
    write(tmp_path, "item_id;price;size\na;1.234,5;36\nb;2,25;37\n")
    table = items(tmp_path)
    assert table["price"].to_pylist() == [1234.5, 2.25] and table["size"].to_pylist() == [36, 37]


def values(folder, texts, delimiter=",", **options):
    lines = "".join(f'u{delimiter}i{delimiter}1{delimiter}"{text}"\n' for text in texts)
    write(folder, delimiter.join(["user_id", "item_id", "time", "value"]) + "\n" + lines, "log.csv")
    config = TablesConfig.model_validate({"events": {"path": "log.csv", "csv": options}})
    batches = list(read_all_events(Tables(folder, config, ("click",))))
    return pa.Table.from_batches(batches)["value"].to_pylist()


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1,5", "2", "1.234"], [1.5, 2, 1234]),
        (["1.5", "2", "1,234"], [1.5, 2, 1234]),
        (["1,234.5", "1,234"], [1234.5, 1234]),
        (["1.234.567,5", " 1 "], [1234567.5, 1]),
        (["0,125", "None"], [0.125, None]),
        (["1e-1", "+2."], [0.1, 2]),
    ],
)
def test_numbers_with_decimal_commas_and_groups_of_digits(tmp_path, delimiter, texts, numbers):
    assert values(tmp_path, texts, delimiter) == pytest.approx(numbers)


def test_numbers_that_could_be_read_in_two_ways_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"column value.*csv = \{ decimal.*got '1,234', which may be 1\.234 or 1234"):
        values(tmp_path, ["1,234", "2"])
    assert values(tmp_path, ["1,234", "2"], decimal=",") == pytest.approx([1.234, 2])
    assert values(tmp_path, ["1,234", "2"], decimal=".") == [1234, 2]
    with pytest.raises(DataError, match=r"one decimal sign, got '1,5' and '1\.5'"):
        values(tmp_path, ["1,5", "1.5"])
    with pytest.raises(DataError, match=r"expected a number.*got 'many' in row 2 \(line 3\)"):
        values(tmp_path, ["1", "many"])


LISTS = [
    ("a|b", ["a", "b"]),
    ('["a", "b, c"]', ["a", "b, c"]),
    ("['a', \"it's\"]", ["a", "it's"]),
    ("['a' 'b']", ["a", "b"]),
    ("[a, b]", ["a", "b"]),
    ("{a,'b c'}", ["a", "b c"]),
    ("('a', 'b')", ["a", "b"]),
    ("[1, 2, null]", ["1", "2"]),
    ("['a', None]", ["a"]),
    ("[]", []),
    ("", []),
    ("[Remix] x [live]", ["[Remix] x [live]"]),
    ("Jazz (1959)", ["Jazz (1959)"]),
]


@pytest.mark.parametrize("column", ["tags", "creators"])
@pytest.mark.parametrize(("text", "words"), LISTS)
def test_text_that_stands_for_a_list(tmp_path, column, text, words):
    pq.write_table(pa.table({"item_id": ["i"], column: [text]}), tmp_path / "t.parquet")
    quoted = text.replace('"', '""')
    write(tmp_path, f'item_id,{column}\ni,"{quoted}"\n')
    for name in ("t.csv", "t.parquet"):
        assert items(tmp_path, path=name)[column].to_pylist() == [words]


def test_the_separator_is_that_of_the_whole_column(tmp_path):
    write(tmp_path, "item_id\ttags\tcreators\na\tlamp, rug\tTolkien, J. R. R.\nb\tdesk\tA; B\n")
    table = items(tmp_path)
    assert table["tags"].to_pylist() == [["lamp", "rug"], ["desk"]]
    assert table["creators"].to_pylist() == [["Tolkien, J. R. R."], ["A", "B"]]
    write(tmp_path, "item_id\ttags\na\tlamp, rug|desk\nb\tx, y\n")
    assert items(tmp_path)["tags"].to_pylist() == [["lamp, rug", "desk"], ["x, y"]]
    assert items(tmp_path, list_separator=", ")["tags"].to_pylist() == [["lamp", "rug|desk"], ["x", "y"]]


def test_a_list_of_objects_is_refused_with_its_row(tmp_path):
    write(tmp_path, "item_id\ttags\na\t['x']\nb\t[{'id': 18, 'name': 'Drama'}]\n")
    with pytest.raises(DataError, match=r"column tags \(tags\): expected a list of text.*in row 2 \(line 3\)"):
        items(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string()),
        pa.large_list(pa.large_string()),
        pa.list_(pa.string_view()),
        pa.list_(pa.string(), 3),
        pa.list_(pa.binary()),
        pa.list_(pa.dictionary(pa.int32(), pa.string())),
    ],
)
def test_lists_of_every_type_of_text(tmp_path, kind):
    rows = pa.array([["a", None, "b"], None, ["c", "", "None"]], pa.list_(pa.string()))
    flat = rows.cast(kind) if not pa.types.is_dictionary(kind.value_type) else pa.array(rows.to_pylist(), kind)
    pq.write_table(pa.table({"item_id": ["i", "j", "k"], "tags": flat}), tmp_path / "t.parquet")
    assert items(tmp_path, path="t.parquet")["tags"].to_pylist() == [["a", "b"], None, ["c"]]


def test_ids_that_a_warehouse_wrote_as_bytes_are_text(tmp_path):
    pq.write_table(pa.table({"item_id": pa.array([b"i", b"\xc3\xa9"])}), tmp_path / "t.parquet")
    assert items(tmp_path, path="t.parquet")["item_id"].to_pylist() == ["i", "é"]


def test_lines_of_rows_count_line_breaks_in_values_and_comments(tmp_path):
    path = write(tmp_path, '# made today\nuser_id,item_id,note\nu,i,"a\n\nb"\n\nv,j,c\n')
    assert CsvTable(path, CsvFormat(), NAMES).find_lines([1, 2]) == {1: 3, 2: 7}
