"""A small deployment on which the whole pipeline has run, once per session: data, features, Feast, training, promotion.

conftest.py imports the fixture from here. Tests that change the deployment use `Deployment.copy`. With the folder
$HANDSELL_TEST_DEPLOYMENT, the first session leaves it there for the next: `make test-all` makes a new one in each run.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from handsell.bundles.store import BundleStore
from handsell.config import Config, load_config
from handsell.core.paths import Layout

WORLD = """
format = "world"
[data.world]
users = 150
items = 400
artists = 60
tags = 12
days = 20
sessions_per_user_week = 5.0
users_per_partition = 75
"""
SMALLER_WORLD = """
format = "world"
[data.world]
users = 90
items = 150
artists = 30
tags = 8
days = 14
sessions_per_user_week = 5.0
users_per_partition = 15
"""
TOML = """
name = "tiny"
[data]
DATA
[events.types]
impression = { weight = 0.0, seen = false }
listen = { weight = 1.0 }
skip = { weight = -0.5 }
like = { weight = 2.0 }
save = { weight = 3.0 }
share = { weight = 3.0 }
[split]
ranker_days = 4
validation_days = 2
test_days = 2
max_requests = 200
[features]
history_length = 20
item_columns = ["energy", "tempo"]
[surfaces.home]
repeat = "allow"
[surfaces.similar]
repeat = "allow"
[surfaces.email]
repeat = "after_days"
after_days = 3
[surfaces.discover]
repeat = "exclude"
[retrieval]
candidates = 150
[retrieval.popularity]
k = 60
[retrieval.history]
enabled = true
k = 15
[retrieval.item_knn]
k = 60
shrinkage = 2.0
[retrieval.als]
k = 60
embedding_size = 16
epochs = 5
[retrieval.two_tower]
enabled = TWO_TOWER
k = 60
embedding_size = 16
hidden = 16
epochs = 2
batch_size = 256
[retrieval.content]
k = 60
embedding_size = 16
[ranking]
ranked = 40
trees = 30
depth = 4
min_child_weight = 2.0
negatives = 50
[reranking]
diversity = 0.2
[serving]
clock = "data"
port = PORT
deadline_ms = 20000
feature_log_share = 0.0
[jobs]
partitions = PARTITIONS
small_events = 0
"""


@dataclass(frozen=True)
class Deployment:
    """The state of `make up` without the running service."""

    config: Config
    bundle: str  # id of the live bundle

    @property
    def layout(self) -> Layout:
        return Layout(self.config.state)

    @property
    def path(self) -> Path:
        """Folder of the live bundle."""
        return BundleStore(self.layout.bundles).local_path(self.bundle)

    @property
    def run(self) -> Path:
        """Folder of the training run that built the bundle."""
        return min(self.layout.runs.iterdir())

    def store(self):
        """Open the feature store."""
        from handsell.features.store import open_store

        return open_store(self.config)

    def copy(self, folder: Path) -> Deployment:
        """Copy the deployment to another folder, with a new Feast registry for it."""
        source = folder / self.config.source.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.config.source, source)
        config = load_config(source)
        shutil.copytree(self.config.state, config.state)
        (Layout(config.state).feast / "registry.db").unlink()
        copied = Deployment(config, self.bundle)
        copied.store().apply()
        return copied


def write_config(
    folder: Path, port: int = 18_100, data: str = WORLD, partitions: int = 2, two_tower: bool = True
) -> Config:
    """Write the TOML of the deployment to `folder` and load it; `data` is its [data] section."""
    values = {"PORT": port, "DATA": data.strip(), "PARTITIONS": partitions, "TWO_TOWER": str(two_tower).lower()}
    text = TOML
    for name, value in values.items():
        text = text.replace(name, str(value))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.toml"
    path.write_text(text)
    return load_config(path)


@pytest.fixture(scope="session")
def deployment(ray_cluster, tmp_path_factory) -> Deployment:
    """A trained and promoted deployment, by the functions that the commands call."""
    folder, kept = tmp_path_factory.mktemp("deployment"), os.environ.get("HANDSELL_TEST_DEPLOYMENT")
    if kept and (Path(kept) / "bundle").exists():
        bundle = (Path(kept) / "bundle").read_text()
        return Deployment(load_config(Path(kept) / "tiny.toml"), bundle).copy(folder)
    trained = train_deployment(folder)
    if kept:
        trained.copy(Path(kept))
        (Path(kept) / "bundle").write_text(trained.bundle)
    return trained


def train_deployment(folder: Path) -> Deployment:
    from handsell.features.store import open_store
    from handsell.jobs.features import feature_tables
    from handsell.jobs.ingest import ingest
    from handsell.jobs.train import train, windows

    config = write_config(folder)
    ingest.prepare(config)
    feature_tables.compute_feature_tables(config, windows.write_request_keys(config))
    store = open_store(config)
    store.apply()
    store.materialize()
    train.train(config)
    live = BundleStore(Layout(config.state).bundles).live()
    assert live is not None, "the first bundle of a deployment is promoted"
    return Deployment(config, live)
