"""The Feast project, registry and online store of a config. Does not import Feast.

The `feast` command reads `feature_repo/feature_store.yaml`, which belongs to the config that its project names: `world`
in the checkout, the one of `handsell init` in a project of its own. Every other config has its own
`<state>/feast/feature_store.yaml`, to which `$FEAST_FS_YAML_FILE_PATH` must point. `feature_repo` checks that this file
and `$HANDSELL_CONFIG` agree; where they do not, it prints the two exports to set. So the views of one config are never
registered in the registry of another.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import yaml

from handsell.config import Config, find_shipped, load_config, shipped_root
from handsell.core.errors import FeatureError
from handsell.core.paths import Layout

CONFIG_VARIABLE = "HANDSELL_CONFIG"
FILE_VARIABLE = "FEAST_FS_YAML_FILE_PATH"  # Feast's own
STORE_VARIABLE = "HANDSELL_ONLINE_STORE"  # overrides features.online_store: a connection with a password is a secret
DOLLAR_VARIABLE = "HANDSELL_DOLLAR"
# The class path, not the short name "sqlite": with the short name, Feast keeps a plan of tables by file path, and apply
# drops or forgets tables if the path is spelled differently (a link, a `..`) or the file is missing.
SQLITE = "feast.infra.online_stores.sqlite.SqliteOnlineStore"
ONLINE_BATCH = 10_000  # rows per write; without it Feast writes only the first Arrow batch of a table


def load_selected_config(repo: Path) -> Config:
    """Load the config of `$HANDSELL_CONFIG` (relative to the caller's directory), by default that of the repository."""
    given = os.environ.get(CONFIG_VARIABLE)
    if not given:
        project = yaml.safe_load((repo / "feature_store.yaml").read_text(encoding="utf-8"))["project"]
        folders = (repo.parent, repo.parent / "deployments" / "configs")
        found = [folder / f"{project}.toml" for folder in folders]
        return load_config(next((path for path in found if path.is_file()), found[0]))
    # the feast command has already changed into the repository; PWD still names the caller's directory
    candidates = [Path(given).expanduser(), Path(os.environ.get("PWD", ".")) / given]
    return load_config(next((path for path in candidates if path.is_file()), candidates[-1]))


def build_feast_settings(config: Config) -> dict[str, Any]:
    """Return the content of the config's feature_store.yaml, with absolute paths."""
    folder = Layout(config.state).feast
    given = os.environ.get(STORE_VARIABLE)
    store = given or config.features.online_store
    name = f"${STORE_VARIABLE}" if given else "features.online_store"
    online: dict[str, Any]
    if store == "sqlite":
        online = {"type": SQLITE, "path": str(folder / "online.db")}
    elif ":" not in store:
        shown = "set to something else" if given else repr(store)  # it may be a password without its address
        raise FeatureError(f"{name} is {shown}: expected sqlite, or a redis address host:port")
    elif importlib.util.find_spec("redis") is None:
        raise FeatureError(f"{name} is a redis address, but redis is not installed: pip install 'handsell[redis]'")
    else:  # rows are overwritten whatever their time: that of a late event is not newer
        online = {"type": "redis", "connection_string": store, "skip_dedup": True}
    return {
        "project": config.name,
        "provider": "local",
        "registry": {"registry_type": "file", "path": str(folder / "registry.db")},
        "offline_store": {"type": "duckdb"},
        "online_store": online,
        "entity_key_serialization_version": 3,
        # latest row per key, decided by event_timestamp and then created, and every Arrow batch written
        "materialization": {"pull_latest_features": True, "online_write_batch_size": ONLINE_BATCH},
    }


def write_feast_file(config: Config) -> Path:
    """Write `<state>/feast/feature_store.yaml`; returns its path. A connection from the environment stays there."""
    path = Layout(config.state).feast / "feature_store.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = _escape_dollars(build_feast_settings(config))
    if os.environ.get(STORE_VARIABLE) and "connection_string" in settings["online_store"]:
        settings["online_store"]["connection_string"] = f"${{{STORE_VARIABLE}}}"  # Feast expands variables
    text = f"# written by handsell for {config.source}\n" + yaml.safe_dump(settings, sort_keys=False)
    if not path.is_file() or path.read_bytes() != text.encode():
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    return path


def prepare_feast_environment(config: Config) -> dict[str, str]:
    """Write the Feast file of a config; returns the variables with which every `feast` command uses that file."""
    path = write_feast_file(config)
    dollar = {DOLLAR_VARIABLE: "$"} if f"${{{DOLLAR_VARIABLE}}}" in path.read_text(encoding="utf-8") else {}
    return {CONFIG_VARIABLE: str(config.source), FILE_VARIABLE: str(path), **dollar}


def _escape_dollars(value: Any) -> Any:
    """Replace each $ in texts by a variable that holds one: Feast expands variables, also in paths and passwords."""
    if isinstance(value, dict):
        return {key: _escape_dollars(one) for key, one in value.items()}
    return value.replace("$", f"${{{DOLLAR_VARIABLE}}}") if isinstance(value, str) else value


def explain_mismatch(config: Config, repo: Path, feast_file: Path) -> str | None:
    """Return how `feast_file` differs from this config; None if project, registry and online store agree."""
    text = os.path.expandvars(feast_file.read_text(encoding="utf-8"))
    got, expected = (
        _locate_stores(settings, repo) for settings in (yaml.safe_load(text), build_feast_settings(config))
    )
    wrong = [key for key in expected if got.get(key) != expected[key]]
    if not wrong:
        return None
    exports = "\n".join(
        f"  export {name}={json.dumps(value)}" for name, value in prepare_feast_environment(config).items()
    )
    details = "; ".join(f"{key}: expected {_show(expected[key])}, got {_show(got.get(key))}" for key in wrong)
    return f"config {config.source} and {feast_file} disagree ({details}). Export both, then repeat:\n{exports}"


def _show(setting: Any) -> str:
    """Return a setting for a message; of the options of an online store, such as its password, the names alone."""
    parts = [f"{name}=…" if equals else name for name, equals, _ in (p.partition("=") for p in str(setting).split(","))]
    return repr(",".join(parts))


def find_feature_repo(config: Config) -> Path:
    """Find the folder of Feast definitions above the config file, else that of the package."""
    if settings := find_shipped(config.source, "feature_repo/feature_store.yaml"):
        return settings.parent
    raise FeatureError(
        f"expected feature_repo/ above {config.source} or in the package, got none: install handsell again"
    )


def list_definitions(config: Config) -> list[Path]:
    """Return the files that define what is registered with Feast, those of the package included."""
    return sorted({*find_feature_repo(config).glob("*.py"), *_list_own_definitions()})


def _list_own_definitions() -> list[Path]:
    return sorted((shipped_root() / "feature_repo").glob("*.py"))


def import_definitions() -> dict[str, Any]:
    """Import the Feast files of the package from another Feast repository; return their Feast objects by name.

    Feast imports all files of a repository as top-level modules. So the names of these are free again afterwards: the
    other repository may have a `views.py`, too.
    """
    files = _list_own_definitions()
    names = [path.stem for path in files]
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(files[0].parent))
    try:
        modules = [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(files[0].parent))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(others)
    named = {name: value for module in modules for name, value in vars(module).items()}
    return {name: value for name, value in named.items() if type(value).__module__.startswith("feast.")}


def _locate_stores(settings: dict[str, Any], repo: Path) -> dict[str, Any]:
    """Return the settings that must agree; relative paths are resolved against the repository, as Feast does."""
    registry, online = settings.get("registry", {}), settings.get("online_store", {})
    where = online.get("connection_string") or _resolve(online.get("path", "data/online.db"), repo)
    return {
        "project": settings.get("project"),
        "registry": _resolve(registry if isinstance(registry, str) else registry.get("path", ""), repo),
        "online_store": where,
        "offline_store": settings.get("offline_store", {}).get("type"),
    }


def _resolve(path: str, repo: Path) -> str:
    return str((repo / path).resolve())


def share_online_file(config: Config) -> None:
    """Set WAL mode in the SQLite file, so that readers do not wait for a writer in another process.

    Raises FeatureError if the file is damaged.
    """
    online = build_feast_settings(config)["online_store"]
    if online["type"] != SQLITE:
        return
    path = Path(online["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.DatabaseError as error:
        raise FeatureError(f"{path} is damaged ({error}): remove it, then run `handsell up` again") from None
    finally:
        connection.close()
