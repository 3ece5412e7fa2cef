"""Record commands that change what is served in the audit log, beside the requests that gateways record there."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from handsell.access.audit_entry import AuditEntry
from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.core.logs.id_hashing import make_id_hash
from handsell.core.paths import Layout
from handsell.events.store.opening import has_one_writer
from handsell.jobs.cluster import connect
from handsell.jobs.progress import report_update
from handsell.jobs.store_writer import open_store_writer

LOCK_WAIT_S = 5.0  # for a writer that holds the store's file


@contextmanager
def audit_command(config: Config, action: str, about: str) -> Iterator[None]:
    """Record the block as `done`, or as `failed` with the kind of its error.

    The command counts even where its entry cannot be stored; this is reported.
    """
    try:
        yield
    except BaseException as error:
        append_entry(config, action, about, "failed", type(error).__name__)
        raise
    append_entry(config, action, about, "done")


def append_entry(config: Config, action: str, about: str, status: str, detail: str = "") -> None:
    """Append an entry; where it cannot be stored, this is reported."""
    entry = describe_command(action, about, status, detail)
    through_service = os.environ.get("RAY_ADDRESS") and has_one_writer(config)
    try:
        with (
            connect(config.jobs.num_cpus) if through_service else nullcontext(),
            open_store_writer(config, LOCK_WAIT_S) as write,
        ):
            write("append_audit", [entry])
    except (HandsellError, OSError, TimeoutError) as error:
        report_update(f"not in the audit log: {action} {about} ({error})")


def describe_command(action: str, about: str, status: str, detail: str = "") -> AuditEntry:
    """Return the entry of a command that ends now."""
    return AuditEntry(time.time_ns() // 1_000, None, name_person(), action, about, status, detail)


def name_person() -> str:
    """Return who runs this command, as name@machine."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def hash_user(config: Config, user_id: str) -> str:
    """Return a user as the audit log names them."""
    return f"user {make_id_hash('hashed', Layout(config.state).log_key)(user_id)}"
