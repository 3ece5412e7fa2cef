"""The structure of the package: imports run downwards, without cycles; libraries stay home; names are unique."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "handsell"

# Top to bottom; folders on one line may import each other unless they are listed in APART.
LAYERS = (
    ("testing",),
    ("__main__", "cli", "console", "local"),
    ("doctor",),
    ("jobs", "serving", "simulation"),
    ("bundles", "evaluation", "experiments", "maintenance", "capacity", "migration"),
    ("retrieval", "ranking", "reranking", "onboarding"),
    ("eligibility", "features", "events"),
    ("catalog", "data", "access", "storage"),
    ("config",),
    ("client",),
    ("core",),
)
APART = ({"jobs", "serving", "simulation"}, {"retrieval", "ranking", "reranking", "onboarding"})
SETTINGS = "config.py"  # a component's own config class; config/ collects them
HOMES = {
    "ray": ("jobs/", "serving/", "console/deployment.py"),
    "feast": ("features/feast_import.py", "features/store.py", "features/storage/"),
    "xgboost": ("ranking/xgboost_import.py",),
    "torch": ("retrieval/neural/", "ranking/neural/"),
    "fastapi": ("serving/http/", "serving/graph/gateway.py"),
    "matplotlib": ("evaluation/report/",),
    "lark": ("eligibility/grammar.py",),
    "obstore": ("storage/objects.py",),
    "pytest": ("testing/",),
}
MIRRORS = ("client/answers.py", "client/bodies.py")  # have the names of the API's own models
MAX_MODULES = 16
LEVEL = {folder: level for level, folders in enumerate(LAYERS) for folder in folders}
FILES = sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


@cache
def imported(path: Path) -> tuple[str, ...]:
    """Every module that a file names in an import, also inside functions."""
    return tuple(_imported(ast.walk(ast.parse(path.read_text()))))


def _imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if module in MODULES else node.module or ""


def folder_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(path: Path):
    here = path.relative_to(ROOT).with_suffix("").parts[0]
    if here == "__init__":
        return
    assert here in LEVEL, f"{here} has no place in LAYERS"
    for module in imported(path):
        there = folder_of(module) if module.startswith("handsell") else ""
        settings = module in MODULES and MODULES[module].name == SETTINGS
        if path.name == SETTINGS and there:
            assert settings or there == "core", f"{path}: settings are read first, they import core and settings alone"
        if not there or there == here or settings:
            continue
        assert LEVEL[there] >= LEVEL[here], f"{path.name} in {here} imports {module}, which lies above it"
        siblings = LEVEL[there] == LEVEL[here] and any({here, there} <= group for group in APART)
        assert not siblings, f"{here} and {there} are kept apart: they meet in a bundle or over HTTP"


def test_no_file_imports_itself_by_way_of_others():
    """Imports inside functions count: they must not hide a cycle."""
    graph = {module: {other for other in imported(path) if other in MODULES} for module, path in MODULES.items()}
    graph = {module: others - {module} for module, others in graph.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" ← ".join(error.args[1]))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_stay_at_home(path: Path):
    where = path.relative_to(ROOT).as_posix()
    for module in imported(path):
        homes = HOMES.get(module.split(".")[0])
        assert homes is None or where.startswith(homes), f"{where} imports {module}; it belongs in {homes}"


def test_class_names_are_unique():
    places = defaultdict(list)
    for path in FILES:
        if path.relative_to(ROOT).as_posix() in MIRRORS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module_of(path))
    assert not {name: where for name, where in places.items() if len(where) > 1}


def test_folders_are_small_enough_to_read():
    sizes = {folder: len(list(folder.glob("*.py"))) for folder in (ROOT, *ROOT.rglob("*/"))}
    assert not {str(folder): n for folder, n in sizes.items() if n > MAX_MODULES + 1}  # __init__ besides
