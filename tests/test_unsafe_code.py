"""No module can run code hidden in data: pickle, eval, unsafe loaders, shells. Exceptions state their reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path for folder in ("src", "feature_repo", "deployments", "docs") for path in (ROOT / folder).rglob("*.py")
)

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
CALLS = {
    "eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec", "os.system", "os.popen",
    "subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp", "pandas.read_pickle",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all",
}  # fmt: skip
SAFE_ONLY_WITH = {"torch.load": ("weights_only", True), "torch.jit.load": ("never", True)}
UNSAFE_VALUES = {"allow_pickle": (False,), "shell": (False,)}  # by keyword: the only values that are allowed
ALLOWED = {
    (
        "src/handsell/jobs/ray_tasks.py",
        "cloudpickle",
    ): "results of tasks in one cluster, whose calls need its token",
    ("src/handsell/serving/graph/remote.py", "request_serialization='pickle'"): "calls between deployments of one "
    "cluster, which need its token (tests/graph/test_serving_sockets.py attacks them)",
    ("src/handsell/serving/graph/remote.py", "response_serialization='pickle'"): "as the requests",
}


def find_unsafe(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and description of everything in a module that may run code from data."""
    tree = ast.parse(source)
    names = dict(_list_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield node.lineno, str(node.module)
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, what) for what in _find_in_call(node, names))


def _list_imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (local name, full name) of everything imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (first, first)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _find_in_call(call: ast.Call, names: dict[str, str]) -> Iterator[str]:
    first, _, rest = ast.unparse(call.func).partition(".")
    called = ".".join(filter(None, (names.get(first, first), rest)))
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if called in CALLS or called.endswith(".read_pickle"):
        yield called
    if called in SAFE_ONLY_WITH:
        keyword, value = SAFE_ONLY_WITH[called]
        if keyword not in given or not _is_constant(given[keyword], value):
            yield called
    for keyword, value in given.items():
        if keyword in UNSAFE_VALUES and not _is_constant(value, *UNSAFE_VALUES[keyword]):
            yield f"{keyword}={ast.unparse(value)}"
        if isinstance(value, ast.Constant) and value.value in ("pickle", "cloudpickle"):
            yield f"{keyword}={value.value!r}"
        if keyword is None and called.split(".")[0] == "subprocess":
            yield f"{called}(**…)"  # a shell may be among them


def _is_constant(node: ast.expr, *values: object) -> bool:
    return isinstance(node, ast.Constant) and any(node.value is value for value in values)


def test_nothing_in_data_can_run_code():
    found = {
        (path.relative_to(ROOT).as_posix(), what): line
        for path in FILES
        for line, what in find_unsafe(path.read_text(encoding="utf-8"))
    }
    assert len(FILES) > 300
    assert {f"{path}:{found[path, what]}: {what}" for path, what in found.keys() - ALLOWED.keys()} == set()
    assert ALLOWED.keys() - found.keys() == set(), "an exception that is no longer needed"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from dill import loads", "import cloudpickle as p", "eval('1')", "exec(x)",
        "import yaml\nyaml.load(f)", "from yaml import load\nload(f)", "import yaml as y\ny.unsafe_load(f)",
        "import torch\ntorch.load(f)", "import torch\ntorch.load(f, weights_only=False)",
        "import torch\ntorch.load(f, weights_only=flag)", "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import numpy as np\nnp.load(f, allow_pickle=flag)", "import subprocess\nsubprocess.run(c, shell=True)",
        "from subprocess import Popen\nPopen(c, shell=1)", "import subprocess\nsubprocess.run(c, **options)",
        "import os\nos.system(c)", "import pandas as pd\npd.read_pickle(f)", "call(x, serialization='pickle')",
    ],
)  # fmt: skip
def test_unsafe_code_is_found(source):
    assert list(find_unsafe(source))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()", "import yaml\nyaml.safe_load(f)", "import torch\ntorch.load(f, weights_only=True)",
        "import numpy as np\nnp.load(f)", "import numpy as np\nnp.load(f, allow_pickle=False)",
        "import subprocess\nsubprocess.run([c], shell=False)", "import re\nre.compile('x')",
    ],
)  # fmt: skip
def test_safe_code_is_not(source):
    assert not list(find_unsafe(source))
