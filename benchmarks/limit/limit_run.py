"""CPU and wall time of the three stages in one thread, beside what no implementation avoids.

    make up && python -m benchmarks limit --before v0.1.0
    python -m benchmarks serving --set ml-100k --keep FOLDER      # trains MovieLens 100k, unless FOLDER has it
    HANDSELL_HOME=FOLDER/home python -m benchmarks limit --config FOLDER/served.toml --before REVISION

The limit is measured in the same run: products with the item matrix of each source by vectors and their partial sorts,
and XGBoost's own prediction on ready matrices. The stages are measured with the compiled kernels and with NumPy alone;
`--before` adds those of an older revision, from a git worktree with its own kernels. All take turns, and the report
says which gave the same slates. Figures are ms per request; each is the median over the rounds of the
mean over the users.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.limit import funnel_process
from benchmarks.limit.unavoidable import PARTS, Limit
from benchmarks.report import write_report
from handsell.config import load_config

ROOT = Path(__file__).parents[2]
NOW, NUMPY, BEFORE = "this revision", "NumPy alone", "before"
CPU, WALL = 0, 1


class FunnelProcess:
    """A running `funnel_process.py` on one source folder."""

    def __init__(self, source: Path, config: Path, users: int, kernels: str = "on"):
        environment = {**os.environ, "PYTHONPATH": f"{source}:{ROOT}", "HANDSELL_KERNELS": kernels}
        command = [sys.executable, funnel_process.__file__, str(config), str(users)]
        self._process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def measure(self, batch: int) -> dict[str, Any]:
        """Run the stages for all users; the process's answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"batch": batch}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the stages could not be measured: exit status {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(timeout=60)


@contextlib.contextmanager
def check_out(revision: str) -> Iterator[Path]:
    """Yield the source folder of a revision in a temporary git worktree."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
        try:
            if (tree / "setup.py").exists():  # revisions before the compiled kernels have none
                build = [sys.executable, "setup.py", "build_ext", "--inplace"]
                subprocess.run(build, cwd=tree, check=True, stdout=subprocess.DEVNULL)
            yield tree / "src"
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def main() -> None:
    options = _parse_options()
    with contextlib.ExitStack() as stack:
        own, what = ROOT / "src", (options.config, options.users)
        processes = {NOW: FunnelProcess(own, *what), NUMPY: FunnelProcess(own, *what, kernels="off")}
        if options.before:
            processes[BEFORE] = FunnelProcess(stack.enter_context(check_out(options.before)), *what)
        for process in processes.values():
            stack.callback(process.close)
        rows, same = measure(processes, options)
    about = {"users": options.users, "rounds": options.rounds, "before": options.before, **same}
    write_report("limit", rows, about, options.json)


def measure(
    processes: dict[str, FunnelProcess], options: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Measure every batch size, round by round; also say which processes gave the same slates as this one."""
    config = load_config(options.config)
    stages, users = funnel_process.load_live(config), funnel_process.sample_users(config, options.users)
    rows, same = [], {}
    for batch in options.batches:
        limits = [Limit(stages, requests) for requests in funnel_process.build_requests(stages, users, batch)]
        measured: dict[str, list[dict[str, list[float]]]] = {"limit": [], **{name: [] for name in processes}}
        digests: dict[str, str] = {}
        for round_number in range(options.rounds + 1):  # the first one warms up
            found = {"limit": _sum_up([limit.run() for limit in limits], batch)}
            for name, process in processes.items():
                answer = process.measure(batch)
                digests[name] = answer["digest"]
                found[name] = {stage: _mean_ms(times, batch) for stage, times in answer["took"].items()}
            for name, parts in found.items():
                if round_number:
                    measured[name].append(parts)
        medians = {name: _find_medians(rounds) for name, rounds in measured.items()}
        rows += [row for clock in (CPU, WALL) for row in _build_rows(medians, batch, clock)]
        for name in processes.keys() - {NOW}:
            same[f"same slates as {name}, batch of {batch}"] = "yes" if digests[name] == digests[NOW] else "no"
    return rows, same


def _mean_ms(times: list[list[float]] | list[tuple[float, float]], batch: int) -> list[float]:
    return [1e3 * statistics.fmean(one[clock] for one in times) / batch for clock in (CPU, WALL)]


def _sum_up(runs: list[dict[str, tuple[float, float]]], batch: int) -> dict[str, list[float]]:
    return {part: _mean_ms([run[part] for run in runs], batch) for part in PARTS}


def _find_medians(rounds: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Median of each part over the rounds, and of their sum."""
    summed = [{**one, "all": [sum(part[c] for part in one.values()) for c in (CPU, WALL)]} for one in rounds]
    return {part: [statistics.median(one[part][c] for one in summed) for c in (CPU, WALL)] for part in summed[0]}


def _build_rows(medians: dict[str, dict[str, list[float]]], batch: int, clock: int) -> Iterator[dict[str, Any]]:
    limit = medians["limit"]["all"][clock]
    for name, parts in medians.items():
        whole = parts["all"][clock]
        before = medians[BEFORE]["all"][clock] if BEFORE in medians else None
        products, trees = (parts.get(part, [None, None])[clock] for part in PARTS)
        yield {
            "batch": batch, "clock": ("CPU", "wall")[clock], "of": name,
            **{f"{stage} ms": parts.get(stage, [None, None])[clock] for stage in funnel_process.STAGES},
            "products ms": products, "trees ms": trees, "all ms": whole, "× limit": whole / limit,
            "× before": None if before is None or name == "limit" else whole / before,
        }  # fmt: skip


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks limit", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--users", type=int, default=320)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--before", help="git revision whose stages are measured in turn with this one's")
    parser.add_argument("--json", type=Path, help="output file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
