"""Find out the encoding of a text file and what its lines and quotes look like, in one pass over its bytes."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from handsell.data.readers.formats.file_access import TableFile, open_binary

CHUNK = 4 << 20
HEAD = 1 << 16
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
UNDEFINED = bytes([0x81, 0x8D, 0x8F, 0x90, 0x9D])  # not in Windows-1252
BACKSLASHED = re.compile(r'\\"(?:[^",;|\t\r\n]|"[,;|\t\r\n])')  # a quote in a value as \"
DOUBLED = re.compile(r'[^\\,;|\t\r\n"]""')  # a quote in a value as ""
LONGEST_PATTERN = 4  # characters that either of them matches
NOT_ASCII = re.compile(r"[^\W\d_]{0,20}[^\x00-\x7f][^\W\d_]{0,20}")
MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}")  # a letter in UTF-8
BINARY = {
    b"PK\x03\x04": "an Excel or zip file",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file (rename it to .csv.gz)",
}


class CodingError(Exception):
    """Text that cannot be decoded; `offset`: the byte, or -1 for the whole file."""

    def __init__(self, got: str, offset: int, encoding: str) -> None:
        super().__init__(got)
        self.got, self.offset, self.encoding = got, offset, encoding


@dataclass(frozen=True)
class TextForm:
    """What a text file looks like."""

    encoding: str  # a Python codec
    guessed: bool = False  # neither marked nor UTF-8: read as Windows-1252
    example: str = ""  # a word of a guessed encoding
    line_ends: frozenset[str] = frozenset()
    backslashes: bool = False  # quotes in values are written as \"
    errors: str = "strict"  # what decoding does with wrong bytes


@lru_cache(64)
def examine_text(file: TableFile, status: tuple[int, int] | None, encoding: str | None) -> TextForm:
    """Read the file once; raises CodingError. `status` is part of the cache's key only."""
    try:
        codec = encoding or _recognize(file)
        return _examine(file, codec)
    except CodingError as error:
        if encoding or error.encoding != "utf-8" or error.got != "bytes that are not UTF-8":
            raise
        _require_western(file, error.offset)
        return _examine(file, "cp1252", guessed=True)


def _recognize(file: TableFile) -> str:
    """Return the encoding that a byte order mark, or the first line read as UTF-16, shows; otherwise UTF-8."""
    with open_binary(file) as raw:
        head = raw.read(HEAD)
    for magic, what in BINARY.items():
        if head.startswith(magic):
            raise CodingError(what, -1, "")
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    shares = {name: _share_of_ascii(head, order) for name, order in (("utf-16-le", "<u2"), ("utf-16-be", ">u2"))}
    likely = max(shares, key=lambda name: shares[name])
    return likely if shares[likely] > 0.1 else "utf-8"


def _share_of_ascii(head: bytes, order: str) -> float:
    """Return the share of ASCII in the first line, read as UTF-16: its delimiters and its end at least; 0 with NUL."""
    units = np.frombuffer(head[: len(head) // 2 * 2], order)
    ends = np.flatnonzero((units == ord("\n")) | (units == ord("\r")))
    line = units[: ends[0] + 1] if len(ends) else units
    return float((line < 0x80).mean()) if len(line) and line.all() else 0.0


def _examine(file: TableFile, encoding: str, guessed: bool = False) -> TextForm:
    decoder = codecs.getincrementaldecoder(encoding)()
    ends: set[str] = set()
    backslashed = doubled = False
    last, tail, offset, example = "", "", 0, ""
    with open_binary(file) as raw:
        while True:
            chunk = raw.read(CHUNK)
            kept = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                name = "UTF-8" if encoding.startswith("utf-8") else encoding
                raise CodingError(f"bytes that are not {name}", offset - kept + error.start, encoding) from None
            if "\0" in text:
                before = text[: text.index("\0")].encode(encoding.removesuffix("-sig"), "replace")
                raise CodingError("a NUL character", offset - kept + len(before), encoding)
            text = last + text
            if chunk and text.endswith("\r"):
                text, last = text[:-1], "\r"
            else:
                last = ""
            ends |= _find_line_ends(text)
            seen = tail + text + ("" if chunk else "\n")  # patterns span chunks; the last line may lack its end
            tail = seen[-LONGEST_PATTERN + 1 :]
            if not backslashed and '\\"' in seen:  # faster than the pattern alone
                backslashed = BACKSLASHED.search(seen) is not None
            if not doubled and '""' in seen:
                doubled = DOUBLED.search(seen) is not None
            if guessed and not example and (word := NOT_ASCII.search(text)):
                example = word[0]
            offset += len(chunk)
            if not chunk:
                return TextForm(encoding, guessed, example, frozenset(ends), backslashed and not doubled)


def _find_line_ends(text: str) -> set[str]:
    pairs = text.count("\r\n")
    counts = {"\r\n": pairs, "\n": text.count("\n") - pairs, "\r": text.count("\r") - pairs}
    return {end for end, count in counts.items() if count}


def _require_western(file: TableFile, offset: int) -> None:
    """Raise CodingError unless the bytes that are not ASCII look like Western European letters: few and apart."""
    high = adjacent = position = 0
    previous = False
    with open_binary(file) as raw:
        while chunk := raw.read(CHUNK):
            above = np.frombuffer(chunk, np.uint8) >= 0x80
            bad = [at for at in (chunk.find(byte) for byte in UNDEFINED) if at >= 0]
            if bad:
                raise CodingError("bytes that are neither UTF-8 nor Windows-1252", position + min(bad), "cp1252")
            if MULTIBYTE.search(chunk):
                raise CodingError("bytes that are not UTF-8, beside letters that are", offset, "utf-8")
            high += int(above.sum())
            adjacent += int((above[1:] & above[:-1]).sum()) + (previous and bool(above[0]))
            previous, position = bool(above[-1]), position + len(chunk)
    if 2 * adjacent > high:
        raise CodingError(
            "bytes that are not UTF-8, in sequences that Western European text does not have", offset, "utf-8"
        )
