"""Move the folders that a run has written into place, so that a run that is killed leaves the old data or the new."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from handsell.core.paths import Layout

READY = ".data-ready"


def publish(fresh: Layout, layout: Layout) -> None:
    """Put complete new folders in the place of the old ones.

    The renaming of the whole folder decides: a run that ends before it changes nothing, and `finish_publication`
    continues after it.
    """
    fresh.state.rename(layout.state / READY)
    finish_publication(layout)


def finish_publication(layout: Layout) -> None:
    """Move the folders of a complete run into place; repeats what an interrupted call has done.

    meta.json, which marks complete data, is removed first and comes back with the last folder.
    """
    ready = Layout(layout.state / READY)
    if not ready.state.is_dir():
        return
    if ready.data_meta.is_file():
        layout.data_meta.unlink(missing_ok=True)
    replaced = ready.state / "replaced"
    replaced.mkdir(exist_ok=True)
    for new, old in (
        (ready.catalog, layout.catalog),
        (ready.interactions, layout.interactions),
        (ready.truth, layout.truth),
        (ready.items.parent, layout.items.parent),
    ):
        if new.exists():
            if old.exists():
                shutil.rmtree(replaced / old.name, ignore_errors=True)
                old.rename(replaced / old.name)
            new.rename(old)
    shutil.rmtree(ready.state)


def link_file(path: Path, target: Path) -> None:
    """Give an unchanged file a second name, or copy it where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # of a task that was repeated
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)
