"""Publish a new version of the file of business rules, and keep the earlier ones to roll back to.

    rules/versions/c31a764823fa.toml    content by version
    rules/published.jsonl               one line for each publication, the newest last

The file that `reranking.rules` names is replaced atomically. Serving replicas follow it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from handsell.config import Config
from handsell.core.errors import ConfigError
from handsell.core.paths import Layout
from handsell.reranking.rules.reading import Rules, parse_rules, version_of

LOCK_WAIT_S = 10.0
ELSEWHERE = "edited elsewhere"  # who made a version that was found in the file


@dataclass(frozen=True, slots=True)
class PublishedRules:
    """A version of the rules and how it came to be served."""

    version: str
    time_us: int
    caller: str
    action: str  # publish, rollback or found: a version that was written into the file by other means
    rules: int  # enabled ones
    note: str = ""


class RulesFile:
    """The rules file of a deployment with the history of its versions."""

    def __init__(self, config: Config):
        """Raise ConfigError if the deployment has no rules file."""
        if config.rules_path is None:
            raise ConfigError(
                "reranking.rules: expected the file of business rules, got none: set it in the config, such as "
                '`rules = "rules.toml"`, create the file, which may be empty, and deploy again'
            )
        self.path: Path = config.rules_path
        self._folder, self._uri = Layout(config.state).rules, config.storage_uri

    def read(self) -> bytes:
        """Return the present content of the file; raises ConfigError."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ConfigError(f"rules {self.path} cannot be read ({error.strerror}): see docs/rules.md") from None

    def read_version(self, version: str) -> bytes:
        """Return the content of a published version; raises ConfigError for an unknown one."""
        content = self.read()
        if version_of(content) == version:
            return content
        if version not in {one.version for one in self.list_versions()}:
            known = ", ".join(one.version for one in self.list_versions()[:5]) or "none"
            raise ConfigError(f"rules {version[:40]}: expected a published version ({known}), got another")
        return self._version_path(version).read_bytes()

    def list_versions(self) -> list[PublishedRules]:
        """Return all publications, the newest first."""
        try:
            lines = (self._folder / "published.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(PublishedRules(**json.loads(line)))
            except (ValueError, TypeError):  # a line that a crash has cut off
                continue
        return found[::-1]

    def find_obstacle(self) -> str | None:
        """Return why nothing can be published from here, None if it can."""
        if self._uri is not None:
            return (
                "the rules of this deployment come with its configuration, which each node has a copy of: publish "
                "them where that is deployed"
            )
        folder = self.path.resolve().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            return f"{folder} cannot be written by the service: publish the rules where that folder is deployed from"
        return None

    def publish(
        self, content: bytes, caller: str, note: str = "", expected: str | None = None, action: str = "publish"
    ) -> PublishedRules:
        """Make the content the served rules. With `expected`, the version that it replaces must be that one.

        The caller has checked that the rules fit the catalog. Raises ConfigError; then nothing has changed.
        """
        rules = parse_rules(content, str(self.path))
        if why := self.find_obstacle():
            raise ConfigError(f"rules {self.path}: {why}")
        with self._lock():
            self._keep_present(expected)
            self._write(self._version_path(rules.version), content)
            try:
                self._write(self.path.resolve(), content)
            except OSError as error:
                raise ConfigError(f"rules {self.path} cannot be written: {error.strerror}") from error
            return self._record(rules, caller, action, note)

    def roll_back(self, caller: str, version: str | None = None) -> PublishedRules:
        """Publish an earlier version again, by default the one before the present one; raises ConfigError."""
        present = version_of(self.read())
        earlier = [one.version for one in self.list_versions() if one.version != present]
        if version is None and not earlier:
            raise ConfigError(f"rules {present}: expected a version that was published before it, there is none")
        wanted = earlier[0] if version is None else version
        return self.publish(self.read_version(wanted), caller, f"instead of {present}", present, "rollback")

    def _keep_present(self, expected: str | None) -> None:
        """Keep a version that came into the file by other means; raise ConfigError unless it is the expected one."""
        present = self.read()
        version = version_of(present)
        if expected is not None and version != expected:
            raise ConfigError(
                f"rules {self.path}: expected version {expected}, which the change began from, got {version}: somebody "
                "has published other rules meanwhile; begin again from those"
            )
        versions = self.list_versions()
        if not versions or versions[0].version != version:
            self._write(self._version_path(version), present)
            try:
                self._record(parse_rules(present, str(self.path)), ELSEWHERE, "found", "")
            except ConfigError:  # an invalid file, which no replica serves
                return

    def _record(self, rules: Rules, caller: str, action: str, note: str) -> PublishedRules:
        made = PublishedRules(rules.version, time.time_ns() // 1_000, caller, action, len(rules.rules), note)
        with (self._folder / "published.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(made), ensure_ascii=False) + "\n")
        return made

    def _version_path(self, version: str) -> Path:
        return self._folder / "versions" / f"{version}.toml"

    def _write(self, path: Path, content: bytes) -> None:
        """Replace a file atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._folder / ".lock", timeout=LOCK_WAIT_S, mode=0o600):
                yield
        except Timeout:
            raise ConfigError(
                f"rules {self.path}: another process has published for {LOCK_WAIT_S:.0f} s: try again"
            ) from None
