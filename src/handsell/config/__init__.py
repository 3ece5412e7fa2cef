"""One TOML file for each deployment, read into one frozen object.

    config = load_config(Path("deployments/configs/world.toml"))

Environment variables that override the file: `HANDSELL_DATA` (data.path), `HANDSELL_STORAGE` (storage.uri) and
`HANDSELL_HOME` (folder of all state).
"""

from handsell.access.config import AccessConfig
from handsell.bundles.config import GateConfig
from handsell.config.locations import find_shipped, project_root, shipped_root, state_home
from handsell.config.schema import Config
from handsell.config.toml_file import load_config
from handsell.console.config import ConsoleConfig
from handsell.data.config import DataConfig, EventsConfig, SplitConfig
from handsell.eligibility.config import Surface
from handsell.experiments.config import Arm, Experiment, HoldoutConfig
from handsell.features.config import FeaturesConfig
from handsell.jobs.config import JobsConfig, TuningConfig
from handsell.maintenance.config import RetentionConfig
from handsell.ranking.config import RankingConfig
from handsell.reranking.config import RerankingConfig
from handsell.retrieval.config import RetrievalConfig
from handsell.serving.config import ServingConfig
from handsell.storage.config import StorageConfig

__all__ = [
    "AccessConfig",
    "Arm",
    "Config",
    "ConsoleConfig",
    "DataConfig",
    "EventsConfig",
    "Experiment",
    "FeaturesConfig",
    "GateConfig",
    "HoldoutConfig",
    "JobsConfig",
    "RankingConfig",
    "RerankingConfig",
    "RetentionConfig",
    "RetrievalConfig",
    "ServingConfig",
    "SplitConfig",
    "StorageConfig",
    "Surface",
    "TuningConfig",
    "find_shipped",
    "load_config",
    "project_root",
    "shipped_root",
    "state_home",
]
