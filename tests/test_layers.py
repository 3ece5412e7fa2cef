"""Imports run downwards only, and heavy libraries stay where they belong."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "handsell"

# Top to bottom; folders on one line may import each other unless they are listed in APART.
LAYERS = (
    ("__main__", "cli", "console", "local"),
    ("jobs", "serving", "simulation"),
    ("bundles", "evaluation", "experiments"),
    ("retrieval", "ranking", "reranking"),
    ("eligibility", "features", "events"),
    ("catalogue", "data"),
    ("core",),
)
APART = ({"jobs", "serving", "simulation"}, {"retrieval", "ranking", "reranking"})
HOMES = {
    "ray": ("jobs/", "serving/"),
    "feast": ("features/feast_import.py", "features/store.py"),
    "torch": ("retrieval/neural_training.py", "retrieval/two_tower_training.py", "retrieval/sasrec_training.py"),
    "fastapi": ("serving/gateway.py", "serving/api.py", "serving/problems.py"),
    "implicit": ("retrieval/als.py",),
    "matplotlib": ("evaluation/",),
    "lark": ("eligibility/grammar.py",),
}
LEVEL = {folder: level for level, folders in enumerate(LAYERS) for folder in folders}
FILES = sorted(ROOT.rglob("*.py"))


def imported(path: Path) -> list[str]:
    """Every module that a file names in an import, also inside functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(node.module or "")
    return names


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
        if not there or there == here:
            continue
        assert LEVEL[there] >= LEVEL[here], f"{path.name} in {here} imports {module}, which lies above it"
        siblings = LEVEL[there] == LEVEL[here] and any({here, there} <= group for group in APART)
        assert not siblings, f"{here} and {there} are kept apart: they meet in a bundle or over HTTP"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_stay_at_home(path: Path):
    where = path.relative_to(ROOT).as_posix()
    for module in imported(path):
        homes = HOMES.get(module.split(".")[0])
        assert homes is None or where.startswith(homes), f"{where} imports {module}; it belongs in {homes}"
