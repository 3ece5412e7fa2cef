"""Open the files of tables on this machine, in object stores (s3://, gs://) and on web servers (https://)."""

from __future__ import annotations

import gzip
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, cast
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from handsell.core.errors import DataError
from handsell.core.paths import is_uri


@dataclass(frozen=True, slots=True)
class FileStatus:
    """Size and time of a file; named like the fields of os.stat_result."""

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True, order=True)
class RemoteFile:
    """A file that a URI names; has the methods of Path that readers need."""

    uri: str

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.uri).path).rpartition("/")[2]

    def stat(self) -> FileStatus:
        """Return size and time; raise DataError if the file cannot be found."""
        with explain_errors(self):
            return self._stat()

    def _stat(self) -> FileStatus:
        filesystem, path = _open_filesystem(self.uri)
        if is_web(self.uri):
            info = filesystem.handler.fs.info(path)
            changed = info.get("Last-Modified") or info.get("last-modified")
            time = int(parsedate_to_datetime(changed).timestamp() * 1e9) if changed else 0
            return FileStatus(int(info.get("size") or 0), time or zlib.crc32(str(info.get("ETag", "")).encode()))
        info = filesystem.get_file_info(path)
        return FileStatus(info.size or 0, info.mtime_ns or 0)

    def __str__(self) -> str:
        return hide_secrets(self.uri)


TableFile = Path | RemoteFile


def hide_secrets(uri: str) -> str:
    """Return a URI for messages: without credentials, and without its query; other paths are unchanged."""
    if not is_uri(uri):
        return uri
    parts = urlsplit(uri)
    query = "?…" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}"


def get_address(file: TableFile) -> str:
    """Return the text from which parse_file makes the file again."""
    return file.uri if isinstance(file, RemoteFile) else str(file)


def parse_file(path: str) -> TableFile:
    return RemoteFile(path) if is_uri(path) else Path(path)


def is_web(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def has_suffix(file: TableFile, suffixes: tuple[str, ...]) -> bool:
    """Whether the name ends with a suffix, in upper or lower case."""
    return file.name.lower().endswith(suffixes)


@contextmanager
def open_binary(file: TableFile) -> Iterator[IO[bytes]]:
    """Open a file for reading from its start; .gz files are unpacked. Errors while it is read become DataErrors."""
    with explain_errors(file):
        if isinstance(file, Path):
            raw: IO[bytes] = file.open("rb")
        else:
            filesystem, path = _open_filesystem(file.uri)
            raw = cast(IO[bytes], io.BufferedReader(filesystem.open_input_stream(path, compression=None), 1 << 20))
        with raw:
            if not has_suffix(file, (".gz",)):
                yield raw
                return
            with gzip.open(raw) as unpacked:
                yield cast(IO[bytes], unpacked)


@contextmanager
def open_random_access(file: TableFile) -> Iterator[pa.NativeFile]:
    with explain_errors(file):
        if isinstance(file, Path):
            with pa.memory_map(str(file)) if file.stat().st_size else pa.BufferReader(b"") as opened:
                yield opened
            return
        filesystem, path = _open_filesystem(file.uri)
        if is_web(file.uri) and not filesystem.handler.fs.info(path).get("partial"):
            with _download(file) as opened:
                yield opened
            return
        with filesystem.open_input_file(path) as opened:
            yield opened


@contextmanager
def _download(file: RemoteFile) -> Iterator[pa.NativeFile]:
    """Copy a file whose server sends whole files only to a temporary file."""
    with open_binary(file) as source, tempfile.NamedTemporaryFile(prefix="handsell-") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        with pa.OSFile(copy.name) as opened:
            yield opened


def list_remote(uri: str, where: str) -> list[RemoteFile]:
    """Return the file at a URI, or all files below it, sorted; [] if there is none."""
    if is_web(uri):
        return [RemoteFile(uri)]
    with explain_errors(where):
        filesystem, path = _open_filesystem(uri)
        info = filesystem.get_file_info(path)
        if info.type == pafs.FileType.File:
            return [RemoteFile(uri)]
        found = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
        base, _, query = uri.partition("?")
        tail = f"?{query}" if query else ""
        inside = sorted(i.path for i in found if i.type == pafs.FileType.File)
        return [RemoteFile(f"{base.rstrip('/')}/{quote(p[len(path) :].lstrip('/'))}{tail}") for p in inside]


@contextmanager
def explain_errors(file: TableFile | str) -> Iterator[None]:
    """Raise DataError for a file that cannot be opened or read."""
    try:
        yield
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid, ImportError) as error:
        lines = (str(error) or type(error).__name__).splitlines()
        if isinstance(file, RemoteFile):
            lines[0] = lines[0].replace(file.uri, str(file))
        remedy = "check the address and the credentials" if is_uri(str(file)) else "correct or remove the file"
        raise DataError(f"{file} cannot be read: {lines[0]}; {remedy}") from None


def _open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    if is_web(uri):
        import fsspec

        return pafs.PyFileSystem(pafs.FSSpecHandler(fsspec.filesystem(uri.partition(":")[0]))), uri
    try:
        return pafs.FileSystem.from_uri(uri.replace(" ", "%20"))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        expected = "s3://, gs://, https://, http://, hdfs:// or file://"
        reason = str(error).replace(uri, hide_secrets(uri)).replace(uri.replace(" ", "%20"), hide_secrets(uri))
        raise DataError(
            f"{hide_secrets(uri)}: expected an address that begins with {expected}; got: {reason}"
        ) from None
