"""A share of the users of a data set, drawn by a hash of their ids, for measurements that must end in minutes."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

from benchmarks.quality.served_tables import require
from handsell.config import Config

SEQUENCES, ATTRIBUTES = "Beauty.txt", "Beauty_item2attributes.json"


def is_drawn(user: str, share: float) -> bool:
    """Whether a user belongs to the sample; a larger share contains every smaller one."""
    return zlib.crc32(user.encode()) < share * 2**32


def sample_sequences(source: Path, folder: Path, share: float) -> Path:
    """Write the sequences of the drawn users to a folder, beside all attributes; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (
        require(source / SEQUENCES, "set HANDSELL_TEST_DATA to the folder of the data sets").read_text().splitlines()
    )
    kept = [line for line in lines if is_drawn(line.split(maxsplit=1)[0], share)]
    (folder / SEQUENCES).write_text("\n".join(kept) + "\n")
    shutil.copyfile(source / ATTRIBUTES, folder / ATTRIBUTES)
    return folder


def sample_table(path: Path, share: float) -> None:
    """Keep only the rows of drawn users in a CSV file whose first column is `user_id`."""
    header, *rows = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join([header, *(row for row in rows if is_drawn(row.split(",", 1)[0], share))]), "utf-8")


def shrink_world(config: Config, share: float) -> Config:
    """Return the config of a synthetic world with that share of its users."""
    world = config.data.world.model_copy(update={"users": max(2, round(share * config.data.world.users))})
    return config.model_copy(update={"data": config.data.model_copy(update={"world": world})})
