"""Which folders of a deployment this process cannot write to, and why, in words."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

from handsell.config.schema import Config
from handsell.core.errors import ConfigError


def require_writable(config: Config) -> None:
    """Raise ConfigError if this process cannot write to a folder of the deployment's state."""
    if problems := find_unwritable(config.state):
        raise ConfigError("\n".join(problems))


def find_unwritable(state: Path) -> list[str]:
    """Describe the folders of a state folder that this process cannot write to: itself, and those directly in it.

    Where the state folder does not exist, the nearest folder above it counts, in which it would be created.
    """
    if not state.is_dir():
        above = next(folder for folder in (state, *state.parents) if folder.exists())
        problem = describe_unwritable(above)
        return [f"cannot create {state}: {problem}"] if problem else []
    try:
        inside = sorted(path for path in state.iterdir() if path.is_dir())
    except OSError:  # unreadable, and thus reported below
        inside = []
    found = [describe_unwritable(folder) for folder in (state, *inside)]
    return [problem for problem in found if problem]


def describe_unwritable(folder: Path) -> str | None:
    """Say why this process cannot create files in a folder, by the users and the mode, and what to do.

    None if it can.
    """
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return None
    try:
        status = folder.stat()
        read_only = bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError as error:
        return f"{folder} cannot be examined by {_name_process()}: {error.strerror}"
    if not stat.S_ISDIR(status.st_mode):
        return f"{folder} is a file: expected a folder"
    if read_only:
        return f"{folder} is on a read-only file system: mount it writable, or set HANDSELL_HOME to another folder"
    return (
        f"{folder} cannot be written by {_name_process()}: it belongs to {_name_user(status.st_uid)} and "
        f"{_name_group(status.st_gid)}, mode {stat.filemode(status.st_mode)}. Give it to uid {os.geteuid()} "
        f"(chown -R {os.geteuid()}:{os.getegid()} {folder}; in a pod, fsGroup), or set HANDSELL_HOME to another folder"
    )


def _name_process() -> str:
    return f"{_name_user(os.geteuid())} and {_name_group(os.getegid())}, which run this process,"


def _name_user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _name_group(gid: int) -> str:
    try:
        return f"group {grp.getgrgid(gid).gr_name} (gid {gid})"
    except KeyError:
        return f"gid {gid}"
