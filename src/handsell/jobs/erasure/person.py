"""Find the ids of a person in values and in text, without touching ids that merely contain them.

A value of a table is the person's if it is equal to an id. In text, an id is delimited: `u1` is neither in `u10` nor in
`acme/u1-b`. Ids that are short or numbers, such as 12, are everywhere in text; they count only where the text says that
they are a user's: `"user_id": "12"`, `user=12`, `/users/12/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

USER_COLUMNS = frozenset(("user_id", "visitor_id", "anonymous_id", "owner", "user"))  # every value is a user's id
OTHER_COLUMNS = frozenset(
    (
        "item_id", "item", "item_ids", "type", "surface", "title", "text", "creators", "creator", "creator_id", "tags",
        "tag", "tag_id", "bundle", "action", "kind", "sources", "gateway", "code", "reason", "version",
        "seen_item_ids", "history_item_ids", "top_creators", "top_tags", "names",
    )
)  # fmt: skip
"""Columns whose values are no ids of users, although an item or a tag may be called like one."""

DISTINCTIVE = 5  # bytes of an id that can be searched without a word before it
BEFORE = rb"(?<![0-9A-Za-z_\-\x80-\xff])(?<![0-9A-Za-z_\-][.@+/])(?<!%[0-9A-Fa-f]{2})(?<!anonymous:)"
AFTER = rb"(?![0-9A-Za-z_\-%\x80-\xff]|[.@+][0-9A-Za-z_])"
NAMED = rb"(?:\b(?:user_id|visitor_id|anonymous_id|person|user|visitor)s?\\?[\"']?\s?[:= ]\s?[brf]?\\?[\"']?|/users/)"


@dataclass(frozen=True)
class Person:
    """The ids that belong to people who are erased: a user's, and those of the user's visitors."""

    ids: tuple[str, ...]

    @cached_property
    def distinctive(self) -> Person:
        """The ids that are unlikely to be anything else where nothing says that they are a user's."""
        return Person(tuple(one for one in self.ids if is_distinctive(one)))

    def in_column(self, name: str) -> Person:
        """The ids that count in a column of this name."""
        if name in OTHER_COLUMNS:
            return Person(())
        return self if name in USER_COLUMNS else self.distinctive

    def mark(self, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Mark the values (N,) bool of a column of text that are an id."""
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        found = pc.is_in(array.cast(pa.string()), pa.array(self.ids, pa.string()))
        return np.asarray(pc.fill_null(found, False))

    @cached_property
    def _patterns(self) -> list[re.Pattern[bytes]]:
        """Patterns whose group `id` is an id in text; empty without ids."""
        forms = {one: _write(one) for one in self.ids}
        named = [form for written in forms.values() for form in written]
        free = [form for one, written in forms.items() if is_distinctive(one) for form in written]
        found = [NAMED + rb"(?P<id>" + b"|".join(map(re.escape, named)) + rb")" + AFTER] if named else []
        if free:
            found.append(BEFORE + rb"(?P<id>" + b"|".join(map(re.escape, free)) + rb")" + AFTER)
        return [re.compile(pattern) for pattern in found]

    def find_in_text(self, text: bytes) -> list[tuple[int, int]]:
        """Return the places (begin, end) of ids in text, in order."""
        return sorted({match.span("id") for pattern in self._patterns for match in pattern.finditer(text)})

    def mask(self, text: bytes) -> tuple[bytes, int]:
        """Return the text with stars in the place of ids, as long as before, and how many there were."""
        places = self.find_in_text(text)
        masked = bytearray(text)
        for begin, end in places:
            masked[begin:end] = b"*" * (end - begin)
        return bytes(masked), len(places)

    def count_in_values(self, column: pa.Array | pa.ChunkedArray) -> int:
        """Count the values of a column, also inside lists and objects, that are an id or text with an id."""
        return sum(self._count(leaf) for leaf in list_texts(column)) if self.ids else 0

    def _count(self, texts: pa.Array) -> int:
        equal = self.mark(texts)
        longer = texts.filter(pa.array(~equal)).drop_null()
        found = int(np.count_nonzero(equal))
        for one in self.ids:
            for text in longer.filter(pc.match_substring(longer, one)).to_pylist():
                found += len(self.find_in_text(text.encode(errors="surrogatepass")))
        return found


def is_distinctive(user_id: str) -> bool:
    """Return whether an id is unlikely to be in text as something else."""
    return len(user_id.encode(errors="surrogatepass")) >= DISTINCTIVE and not user_id.replace(".", "").isdigit()


def list_texts(column: pa.Array | pa.ChunkedArray) -> Iterator[pa.Array]:
    """Yield the text in a column as arrays of strings, from lists, objects, dictionaries and bytes, too."""
    if isinstance(column, pa.ChunkedArray):
        for chunk in column.chunks:
            yield from list_texts(chunk)
        return
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from list_texts(column.dictionary_decode())
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from list_texts(pc.list_flatten(column))
    elif pa.types.is_map(kind):
        yield from list_texts(column.keys)
        yield from list_texts(column.items)
    elif pa.types.is_struct(kind):
        for place in range(kind.num_fields):
            yield from list_texts(column.field(place))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield column.cast(pa.string())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        yield pa.array([None if v is None else v.decode(errors="replace") for v in column.to_pylist()], pa.string())


def _write(user_id: str) -> list[bytes]:
    """Return the forms of an id in text: as it is, in JSON and in a URL."""
    forms = (user_id, json.dumps(user_id)[1:-1], json.dumps(user_id, ensure_ascii=False)[1:-1], quote(user_id, safe=""))
    return list(dict.fromkeys(form.encode(errors="surrogatepass") for form in forms))
