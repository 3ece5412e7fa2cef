"""Nothing that happens at or after t reaches a request at t: the future is randomized and not a byte may change.

Two deployments of the same log, of which one has users, items and types of all events from t on shuffled, go
through the data and features jobs, Feast's registry and point-in-time joins, and the retrievers' fits. Then a
planted leak, each in its place, must break the comparison, or it would prove nothing.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from deployment import Deployment, write_config
from handsell.bundles.stages import load_candidates
from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import Ragged
from handsell.core.funnel import run_local
from handsell.core.units import DAY_US, HOUR_US
from handsell.data.interactions import Interactions
from handsell.data.readers.base import read_all_events
from handsell.data.readers.detect import open_reader
from handsell.data.splits import AS_LOGGED, Bounds, WindowRequests
from handsell.features.matrix import build_matrix, list_features
from handsell.jobs.cluster import run_tasks
from handsell.jobs.features import feature_tables
from handsell.jobs.ingest import ingest
from handsell.jobs.train import examples, retrievers, windows
from handsell.jobs.train.requests import build_requests_table, fetch_user_rows, load_requests
from handsell.ranking.xgboost_ranker import XGBoostRanker
from handsell.retrieval import registry
from handsell.retrieval.content_vectors import Content

pytestmark = pytest.mark.slow

TABLES = """
format = "tables"
path = "source"
[data.tables.events]
path = "events"
[data.tables.items]
path = "items.parquet"
[data.tables.users]
path = "users.parquet"
"""


@pytest.fixture(scope="module")
def moment(deployment):
    """t: start of the ranker window and end of the retrievers' fit window; not the start of a day."""
    last = pc.max(pq.read_table(deployment.layout.interactions, columns=["time"])["time"]).as_py()
    t = Bounds.of(deployment.config.split, last).ranker
    assert t % DAY_US > HOUR_US
    return t


@pytest.fixture(scope="module")
def pair(deployment, moment, tmp_path_factory):
    """Two deployments with fitted retrievers: on the log, and on the log with a scrambled future."""
    events = pa.Table.from_batches(read_all_events(open_reader(deployment.config)))
    folder = tmp_path_factory.mktemp("futures")
    logs = {"as_it_was": events, "scrambled": scrambled(events, moment)}
    with ThreadPoolExecutor(len(logs)) as both:  # most of it is waiting for Ray and for Feast's command
        pair = list(both.map(lambda name: prepared(folder / name, deployment, logs[name], moment), logs))
    for made in pair:  # one after the other: a fit seeds the random numbers of its process
        learn(made)
    return pair


def scrambled(events, t):
    """Shuffle users, items and types of the events from t on; times and earlier events stay."""
    rng = np.random.default_rng(5)
    later = np.flatnonzero(events["time"].cast(pa.int64()).to_numpy() >= t)
    assert 0.2 < len(later) / len(events) < 0.8
    for name in ("user_id", "item_id", "type"):
        take = np.arange(len(events))
        take[later] = rng.permutation(later)
        column = events.schema.get_field_index(name)
        events = events.set_column(column, events.schema.field(name), events[name].take(pa.array(take)))
    return events


def prepared(folder, original, events, t):
    """Build a deployment of that log up to features and content, with a request of every user at t."""
    source = folder / "source"
    (source / "events").mkdir(parents=True)
    pq.write_table(events.sort_by("time"), source / "events" / "part.parquet")
    for table in ("items", "users"):
        shutil.copy(getattr(original.layout, table), source / f"{table}.parquet")
    config = write_config(folder, data=TABLES)
    ingest.prepare(config, progress=lambda line: None)
    run = config.state / "run"
    windows.cut_windows(config, run)
    users = len(pq.read_table(source / "users.parquet"))
    ask(run, np.arange(users), t)
    feature_tables.compute_feature_tables(config, run / "windows" / "ranker.parquet")
    shutil.copytree(original.path / "ranker", run / "ranker")
    made = Deployment(config, "none")
    made.store().apply()
    retrievers.fit_content(config, run / "fit", run / "content")
    return made


def learn(made):
    """Fit the retrievers; the two-tower in this process, which gives the same values as Ray Train in less time."""
    config, run = made.config, made.config.state / "run"
    sizes, content = windows.CatalogSizes.load(made.layout), Content.load(run / "content")
    log = Interactions.read(sorted((run / "fit").glob("*.parquet")), sizes.users, sizes.items)
    for name in config.retrieval.enabled:
        registry.fit(name, log, config.retrieval, content).save(run / "retrievers" / name)


def ask(run, users, time):
    """Replace the requests of the window by one of every user at the given time, without outcomes."""
    n = len(users)
    outcome = (Ragged.empty(n, kind) for kind in WindowRequests.RAGGED.values())
    asked = WindowRequests(users.astype(np.int32), np.full(n, time), np.full(n, AS_LOGGED), *outcome)
    pq.write_table(build_requests_table(asked), run / "windows" / "ranker.parquet")


def answers(made):
    """Return the bytes of all inputs and intermediate results of the requests, by name, from the training functions."""
    config, run = made.config, made.config.state / "run"
    for name in ("rows", "candidates", "item_days"):
        shutil.rmtree(run / name, ignore_errors=True)
    run_tasks(fetch_user_rows, [(config, run, ("ranker",))])
    examples.find_candidates(config, run, run, "ranker")
    run_tasks(examples.fetch_item_values, [(config, run, ("ranker",))])
    snapshot = Snapshot.load(made.layout.snapshot)
    count = pq.read_metadata(run / "rows" / "ranker.parquet").num_rows
    requests, _ = load_requests(config, run, "ranker", slice(0, count), snapshot)
    found = run_local(load_candidates(run, config, snapshot).candidates(requests, config.retrieval.candidates))
    values = examples.load_item_values(config, run, "ranker", snapshot)
    x = build_matrix(requests, found, values, snapshot, config)
    ranker = XGBoostRanker.load(run / "ranker")
    assert ranker.features == list_features(config, found.sources)
    score = ranker.raw(x)
    rows = pq.read_table(run / "rows" / "ranker.parquet")
    known = pc.sum(pc.is_valid(rows["state_time_us"])).as_py()
    assert known > 100 and np.isfinite(score[found.item >= 0]).all() and not found.degraded
    history, profile, seen = requests.history, requests.profile, requests.seen
    arrays = {
        "rows": np.array([str(rows.to_pylist())]),
        "history": np.concatenate([history.item, history.time, history.weight], axis=1),
        "seen": np.concatenate([seen.item.values, seen.time.values]),
        "user features": profile.features,
        "affinities": np.concatenate([profile.creator_weight, profile.tag_weight], axis=1),
        "candidates": found.item,
        "source scores": found.source_score,
        "matrix": x,
        "scores": score,
    }
    return {name: array.tobytes() for name, array in arrays.items()}


def different(pair):
    """Return the names of the values that differ between both futures."""
    one, other = (answers(made) for made in pair)
    return {name for name in one if one[name] != other[name]}


def test_the_future_was_scrambled(pair, moment):
    logs = [pq.read_table(made.layout.interactions) for made in pair]
    parts = [[log.filter(compare(log["time"], moment)) for log in logs] for compare in (pc.less, pc.greater_equal)]
    before, after = ([part.select(["user", "item", "type", "time"]) for part in two] for two in parts)
    assert before[0].equals(before[1]) and not after[0].equals(after[1])
    snapshots = [Snapshot.load(made.layout.snapshot) for made in pair]
    assert not np.array_equal(snapshots[0].values, snapshots[1].values, equal_nan=True)


def test_requests_at_t_do_not_depend_on_later_events(pair):
    assert different(pair) == set()


def test_retrievers_are_fitted_on_the_past_only(pair):
    for file in sorted((pair[0].config.state / "run" / "retrievers").rglob("*.*")):
        other = pair[1].config.state / "run" / file.relative_to(pair[0].config.state / "run")
        assert file.read_bytes() == other.read_bytes(), file.name


def test_a_later_request_is_detected(pair, moment):
    asked = [made.config.state / "run" / "windows" / "ranker.parquet" for made in pair]
    kept = [path.read_bytes() for path in asked]
    for made in pair:
        users = len(pq.read_table(made.layout.users))
        ask(made.config.state / "run", np.arange(users), moment + 3 * DAY_US)
    try:
        assert different(pair) >= {"rows", "history", "user features", "candidates", "matrix", "scores"}
    finally:
        for path, content in zip(asked, kept, strict=True):
            path.write_bytes(content)


LEAKS = {
    "user_history": {"rows", "history", "candidates", "matrix"},
    "user_activity": {"rows", "user features", "matrix", "scores"},
    "user_affinity": {"rows", "affinities", "matrix"},
    "user_seen": {"rows", "seen"},
    "item_activity": {"matrix"},
}


@pytest.mark.parametrize("view", LEAKS)
def test_rows_stamped_too_early_are_detected(pair, view):
    """A planted leak in one view: rows are stamped two days too early."""
    files = [path for made in pair for path in sorted((made.layout.features / view).glob("*.parquet"))]
    kept = {path: path.read_bytes() for path in files}
    for path in files:
        table = pq.read_table(path)
        for name in ("event_timestamp", "created"):
            at, kind = table.schema.get_field_index(name), table.schema.field(name)
            early = pc.subtract(table[name].cast(pa.int64()), 2 * DAY_US).cast(kind.type)
            table = table.set_column(at, kind, early)
        pq.write_table(table, path)
    try:
        assert different(pair) >= LEAKS[view]
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


def test_a_retriever_fitted_on_the_future_is_detected(pair):
    """Popularity fitted on all data."""
    folders = [made.config.state / "run" for made in pair]
    for made, run in zip(pair, folders, strict=True):
        sizes = windows.CatalogSizes.load(made.layout)
        log = Interactions.read(sorted((run / "all").glob("*.parquet")), sizes.users, sizes.items)
        (run / "retrievers" / "popularity").rename(run / "kept")
        registry.fit("popularity", log, made.config.retrieval).save(run / "retrievers" / "popularity")
    try:
        assert different(pair) >= {"candidates", "source scores", "matrix", "scores"}
    finally:
        for run in folders:
            shutil.rmtree(run / "retrievers" / "popularity")
            (run / "kept").rename(run / "retrievers" / "popularity")
