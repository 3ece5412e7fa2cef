"""What a replica of a stage imports before it serves: each library costs a new pod seconds."""

import subprocess
import sys

HEAVY = ("torch", "feast", "sklearn", "scipy.stats", "faiss", "sqlalchemy", "matplotlib", "jwt")
GATEWAY = ("handsell.serving.graph.service", "handsell.serving.http.api", "handsell.features.store")
ASKS = f"""
import sys
from handsell.serving.graph import bundle_watcher, deployments, stage_loading
print([name for name in {HEAVY + GATEWAY} if name in sys.modules])
import sklearn.base
from handsell.ranking.xgboost_import import xgboost
print(xgboost.DMatrix([[0.0], [1.0]]).num_row())
"""


def test_a_stage_imports_only_what_it_needs_and_other_libraries_can_be_imported_later():
    printed = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-2:] == ["[]", "2"]


def test_the_console_starts_without_libraries_of_models():
    """What needs them runs in processes of its own."""
    heavy = ("torch", "feast", "sklearn", "scipy", "faiss", "xgboost", "matplotlib", "duckdb", "ray", "fastapi")
    asks = f"import sys, handsell.console.app\nprint([name for name in {heavy} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
