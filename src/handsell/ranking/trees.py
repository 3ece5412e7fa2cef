"""Predictions of gradient boosted trees by a compiled loop: bit for bit those of XGBoost, in a fraction of its time.

XGBoost spends most of a call on setting it up and on blocks for many rows; a request has a few hundred.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from handsell.core.kernels import compiled

LEAF = -1
IDENTITY = ("rank:", "reg:squarederror")  # objectives whose base score is a margin
LEAST_DEPTH = 5  # so that the kernel may read 16 splits
MOST_DEPTH = 8  # deeper trees are left to XGBoost: every tree is stored as a complete one


@dataclass(frozen=True)
class TreeTables:
    """T trees as complete ones of n = 2^depth − 1 splits: the children of split i are 2i + 1 and 2i + 2."""

    threshold: np.ndarray  # (T + 1, n) float32: smaller values go left
    feature: np.ndarray  # (T + 1, n) int32: 2 × column, plus 1 where missing values go left
    leaf: np.ndarray  # (T + 1, n + 1) float32
    depth: int
    base: float

    @classmethod
    def of(cls, booster: Any) -> TreeTables | None:
        """Read a booster of one target and numerical features; None for others, or without the kernel."""
        if compiled is None:
            return None
        learner = json.loads(bytes(booster.save_raw("json")))["learner"]
        base = np.atleast_1d(json.loads(learner["learner_model_param"]["base_score"]))
        boosting, objective = learner["gradient_booster"], learner["objective"]["name"]
        if boosting["name"] != "gbtree" or len(base) != 1 or not objective.startswith(IDENTITY):
            return None
        model = boosting["model"]
        trees, per_round = model["trees"], model["gbtree_model_param"].get("num_parallel_tree", "1")
        plain = all(not t["categories_nodes"] and t["tree_param"]["size_leaf_vector"] in ("0", "1") for t in trees)
        depth = max([LEAST_DEPTH, *map(_find_depth, trees)])
        if not trees or per_round != "1" or not plain or depth > MOST_DEPTH:
            return None
        parts = zip(*(_complete(tree, depth) for tree in (*trees, trees[0])), strict=True)  # one more may be read
        threshold, feature, leaf = (np.stack(part) for part in parts)
        return cls(threshold, feature, leaf, depth, float(np.float32(base[0])))

    def __len__(self) -> int:
        return len(self.leaf) - 1

    def predict(self, rows: np.ndarray, use: np.ndarray, trees: int = 0) -> np.ndarray:
        """Return the margins (N,) float32 of rows (N, F), NaN where `use` (N,) is false; with `trees`, of the first."""
        out, count = np.empty(len(rows), np.float32), min(trees, len(self)) or len(self)
        compiled.sum_trees(rows, use, self.threshold, self.feature, self.leaf, out, self.base, count, self.depth)
        return out


def _complete(tree: dict[str, list], depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return thresholds (n,), features (n,) and leaves (n + 1,) of the tree; leaves above the last level are copied."""
    splits = 2**depth - 1
    value = np.array(tree["split_conditions"], np.float32)
    threshold, feature, at = (
        np.zeros(splits, np.float32),
        np.zeros(splits, np.int32),
        np.zeros(2 * splits + 1, np.int32),
    )
    for place in range(splits):
        node = at[place]
        at[2 * place + 1] = at[2 * place + 2] = node
        if tree["left_children"][node] != LEAF:
            threshold[place] = value[node]
            feature[place] = 2 * tree["split_indices"][node] + bool(tree["default_left"][node])
            at[2 * place + 1], at[2 * place + 2] = tree["left_children"][node], tree["right_children"][node]
    return threshold, feature, value[at[splits:]]


def _find_depth(tree: dict[str, list]) -> int:
    """Return the number of splits on the longest way to a leaf; nodes may be numbered in any order."""
    depth, level = -1, [0]
    while level:
        depth += 1
        children = (tree[side][node] for node in level for side in ("left_children", "right_children"))
        level = [child for child in children if child != LEAF]
    return depth
