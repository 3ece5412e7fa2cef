"""Download a MovieLens data set: resumable, checksum verified, unpacked atomically."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from handsell.core.errors import DataError

BASE = "https://files.grouplens.org/datasets/movielens"
NAMES = ("ml-latest-small", "ml-100k", "ml-1m", "ml-25m", "ml-32m")
MD5 = {  # of data sets that never change; for the others GroupLens publishes a .md5 file
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
}
CHUNK = 1 << 20
TIMEOUT_S = 30.0


def fetch(name: str, folder: Path, *, base: str = BASE, progress: Callable[[str], None] = print) -> Path:
    """Return the folder of the unpacked data set below `folder`; download it if it does not exist.

    Raises DataError for an unknown name, no connection, a checksum mismatch, or an unsafe or broken archive.
    """
    if name not in NAMES:
        raise DataError(f"data.download: expected one of {', '.join(NAMES)}, got {name!r}")
    target = folder / name
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    url = f"{base}/{name}.zip"
    wanted = (MD5.get(name) if base == BASE else None) or fetch_md5(f"{url}.md5")
    part = folder / f"{name}.zip.part"
    download(url, part, progress)
    verify_md5(part, wanted, url)
    unpack(part, target)
    part.unlink()
    progress(f"{name}: checksum {wanted} matches, unpacked into {target}")
    return target


def fetch_md5(url: str) -> str:
    """Download a `.md5` file and return its digest; its text is "MD5 (x.zip) = …" or "…  x.zip"."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            text = answer.read(4096).decode("ascii", "replace")
    except OSError as error:
        raise download_error(url, error) from None
    found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    if not found:
        raise DataError(f"{url}: expected an MD5 checksum, got {text[:60]!r}; download by hand and set data.path")
    return found[0].lower()


def download(url: str, part: Path, progress: Callable[[str], None]) -> None:
    """Resume the download into `part`; start over if the server cannot resume."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            resumed = answer.status == 206
            total = int(answer.headers.get("Content-Length") or 0) + (done if resumed else 0)
            done = done if resumed else 0
            with part.open("ab" if resumed else "wb") as file:
                _copy(answer, file, done, total, f"{url}", progress)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416:  # the part is complete
            raise download_error(url, error) from None
    except OSError as error:
        raise download_error(url, error) from None


def verify_md5(path: Path, wanted: str, url: str) -> None:
    """Remove the file and raise DataError unless its MD5 is `wanted`."""
    with path.open("rb") as file:
        got = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if got != wanted:
        size = path.stat().st_size
        path.unlink()
        raise DataError(
            f"{url}: checksum mismatch: expected MD5 {wanted}, got {got} ({size} bytes); the file was removed. Try "
            "again; if it fails again, the data set has changed: download it by hand and set data.path"
        )


def unpack(archive: Path, target: Path) -> None:
    """Unpack into a temporary folder and rename it, so that an existing target is complete."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as raw:
        scratch = Path(raw)
        try:
            with zipfile.ZipFile(archive) as zipped:
                for member in zipped.infolist():
                    if not (scratch / member.filename).resolve().is_relative_to(scratch.resolve()):
                        raise DataError(f"{archive}: entry {member.filename!r} leaves the folder; use another archive")
                zipped.extractall(scratch)
        except zipfile.BadZipFile as error:
            raise DataError(f"{archive} is not a readable zip file: {error}; remove it and try again") from None
        inside = scratch / target.name
        shutil.move(inside if inside.is_dir() else scratch, target)
        scratch.mkdir(exist_ok=True)


def download_error(url: str, error: Exception) -> DataError:
    return DataError(
        f"{url}: download failed: {error}. Check the connection and try again (it resumes), or download and unpack "
        "it by hand and set data.path or DATA to the folder"
    )


def _copy(answer, file, done: int, total: int, name: str, progress: Callable[[str], None]) -> None:
    reported = -1
    while chunk := answer.read(CHUNK):
        file.write(chunk)
        done += len(chunk)
        tenth = 10 * done // total if total else 0
        if tenth != reported:
            progress(f"{name}: {done / 1e6:.1f}{f' of {total / 1e6:.1f}' if total else ''} MB")
            reported = tenth
    if total and done < total:
        raise OSError(f"the connection closed after {done} of {total} bytes")
