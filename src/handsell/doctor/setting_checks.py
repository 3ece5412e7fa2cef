"""Checks of the config alone: weights, thresholds, names of columns, ports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from handsell.access.exposure import find_exposure
from handsell.config import Config
from handsell.config.permissions import find_unwritable
from handsell.core.errors import HandsellError
from handsell.data.weights import find_threshold_problem
from handsell.doctor.doctor_report import Finding
from handsell.features.matrix import select_ranker_features
from handsell.features.views import build_views, name_count_column
from handsell.storage.objects import Objects

WORKER_PORTS = (10_002, 19_999)  # of the processes of a local Ray cluster, both included


def find_setting_problems(config: Config) -> Iterator[Finding]:
    """Find settings with which training or serving cannot work, whatever the data is."""
    yield from find_place_problems(config)
    yield from find_storage_problems(config)
    yield from find_weight_problems(config)
    yield from find_name_problems(config)
    yield from find_port_problems(config)
    if exposed := find_exposure(config.access, config.serving.host):
        yield Finding("open service", "error", exposed)
    if config.ranking.without:
        try:
            select_ranker_features(config, config.retrieval.enabled)
        except HandsellError as error:
            yield Finding("unknown ranker feature", "error", str(error))


def find_place_problems(config: Config) -> Iterator[Finding]:
    """Find folders of the deployment's state that this process cannot write to."""
    for problem in find_unwritable(config.state):
        yield Finding("cannot write", "error", problem)


def find_storage_problems(config: Config) -> Iterator[Finding]:
    """Find out whether object storage, if there is any, can be listed, written and deleted from."""
    try:
        if config.storage_uri is not None:
            Objects(config.storage_uri).check()
    except HandsellError as error:
        yield Finding("object storage", "error", str(error))


def find_weight_problems(config: Config) -> Iterator[Finding]:
    """Find thresholds in a wrong order, and types of which none can have a positive weight."""
    types = config.events.types
    for name, kind in types.items():
        if problem := find_threshold_problem(name, kind):
            yield Finding("thresholds", "error", problem)
    weights = list_seen_weights(config)
    if not any(weight > 0 for each in weights.values() for weight in each):
        shown = ", ".join(f"{name} {max(each):g}" for name, each in weights.items()) or "none with seen = true"
        message = (
            f"no event type with seen = true has a positive weight ({shown}), so there is nothing to learn: give the "
            "types that show a preference a weight above 0 in [events.types]"
        )
        yield Finding("no positive weight", "error", message)


def list_seen_weights(config: Config) -> dict[str, list[float]]:
    """Return the weights that events of each type with seen = true can have."""
    return {
        name: [kind.weight, *(weight for _, weight in kind.weight_by_value)]
        for name, kind in config.events.types.items()
        if kind.seen
    }


def find_name_problems(config: Config) -> Iterator[Finding]:
    """Find names of types and columns that would be the same column of a feature view."""
    same = Counter(name_count_column(name) for name in config.events.names)
    for column, count in same.items():
        if count > 1:
            names = ", ".join(repr(name) for name in config.events.names if name_count_column(name) == column)
            message = f"the event types {names} have the same feature column {column}: rename all but one of them"
            yield Finding("event type names", "error", message)
    settings = {
        "item_profile": ("features.item_columns", config.features.item_columns),
        "user_profile": ("features.user_columns and user_attributes", tuple(config.features.filter_attributes)),
    }
    views = build_views(config)
    taken = Counter(name for view in views.values() for name in {*view.names, *view.keys, "event_timestamp", "created"})
    for view, (setting, columns) in settings.items():
        own = Counter(views[view].names)
        for name in dict.fromkeys(columns):
            if own[name] > 1 or taken[name] > 1:
                message = (
                    f"{setting}: {name} is also the name of another column of the feature store, or is named twice: "
                    "map the column to another name in [data.tables.*.columns], or name it once"
                )
                yield Finding("column name taken", "error", message)


def find_port_problems(config: Config) -> Iterator[Finding]:
    """Find ports of one deployment that are equal, or among those that Ray gives to its processes."""
    ports = {
        "serving.port": config.serving.port,
        "jobs.gcs_port": config.jobs.gcs_port,
        "jobs.dashboard_port": config.jobs.dashboard_port,
    }
    for port, count in Counter(ports.values()).items():
        if count > 1:
            names = " and ".join(name for name, own in ports.items() if own == port)
            yield Finding("same port", "error", f"{names} are all {port}: set each to a port of its own")
    low, high = WORKER_PORTS
    for name, port in ports.items():
        if low <= port <= high:
            message = (
                f"{name} = {port} is among the ports {low} to {high}, which Ray gives to its worker processes: set it "
                f"to a port below {low} or above {high}"
            )
            yield Finding("port of Ray's workers", "error", message)
