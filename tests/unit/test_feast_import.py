"""What importing the feature store leaves behind in a process: Feast, and nothing else that Feast would bring."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # starts interpreters

ASKS = """
import json, os, sys
import typeguard
checks = typeguard.typechecked
from handsell.features import store
left = {
    "torch": "torch" in sys.modules,
    "checks": typeguard.typechecked is checks,
    "rewritten": "typeguard" in sys.modules["feast.feature_view"].FeatureView.__init__.__code__.co_names,
    "counts_in_files": [name for name in os.environ if name.startswith("PROMETHEUS_MULTI")],
}
import torch
left["then_torch"] = float(torch.ones(2).sum())
print(json.dumps(left))
"""


def test_nothing_of_torch_or_type_checks_or_shared_counters_is_left():
    told = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, check=True).stdout
    assert json.loads(told.splitlines()[-1]) == {
        "torch": False, "checks": True, "rewritten": False, "counts_in_files": [], "then_torch": 2.0
    }  # fmt: skip


def test_a_torch_that_is_there_already_stays():
    asks = "import torch, sys\nfrom handsell.features import store\nprint(sys.modules['torch'] is torch)"
    told = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "True"
