"""Off-policy estimates from a service's log beside the world's truth.

A trained world serves slates that explore, listeners play tracks, and changed settings are estimated from that log. The
log is what a gateway writes; the estimate rebuilds its requests and runs the log's policy again. Train first:

    handsell train deployments/configs/world.toml
    python -m benchmarks ope_service deployments/configs/world.toml --users 1000 --days 2
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.off_policy.service_log import METRIC, POSITIONS, Listening, copy_deployment, serve_days
from benchmarks.report import write_report
from handsell.config import Config, load_config
from handsell.core.batches import Requests
from handsell.events.store.interface import EventReader
from handsell.events.store.opening import open_reader, open_writer
from handsell.experiments.off_policy.candidate import load_candidate, load_policy
from handsell.experiments.off_policy.evaluation import ESTIMATORS, Question, evaluate_candidate
from handsell.experiments.off_policy.logged_impressions import LoggedSlates
from handsell.experiments.off_policy.probabilities import derive_draw_seeds, draw_slates

QUIET = "[reranking.exploration]\nshare = 0.0\n"
CANDIDATES = {
    "without exploration": QUIET,
    "by score alone": f"[reranking]\nstrength = 0.0\n{QUIET}",
    "diverse": f"[reranking]\nstrength = 1.0\ndiversity = 0.4\n{QUIET}",
    "novel": f"[reranking]\nstrength = 1.0\nnovelty = 0.5\n{QUIET}",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ope_service", description=(__doc__ or "").split(":")[0])
    parser.add_argument("config", type=Path, help="configuration of a trained world")
    parser.add_argument("--users", type=int, default=1_000, help="users who get a slate each day")
    parser.add_argument("--days", type=int, default=2, help="days of traffic")
    parser.add_argument("--share", type=float, default=0.3, help="share of exploration at each of ten positions")
    parser.add_argument("--choice", choices=("uniform", "thompson"), default="uniform", help="how items are drawn")
    parser.add_argument("--draws", type=int, default=16, help="slates drawn per request")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), choices=CANDIDATES)
    parser.add_argument("--json", type=Path, default=None, help="output file")
    options = parser.parse_args()
    trained = load_config(options.config)
    positions = list(range(1, POSITIONS + 1))
    exploration = {"share": options.share, "positions": positions, "choice": options.choice}
    with tempfile.TemporaryDirectory(prefix="handsell-ope-") as folder:
        config = copy_deployment(trained, Path(folder), exploration)
        writer, reader = open_writer(config), open_reader(config)
        slates, requests = serve_days(config, options.days, options.users, options.seed, reader, writer)
        writer.close()
        rows = [
            row for name in options.candidates for row in measure(config, name, slates, requests, options.draws, reader)
        ]
        reader.close()
    about = {"slates": len(slates), "share": options.share, "choice": options.choice, "seed": options.seed}
    write_report("ope_service", rows, about, options.json)


def measure(
    config: Config, name: str, slates: LoggedSlates, requests: Requests, draws: int, reader: EventReader
) -> list[dict[str, Any]]:
    """Estimate one candidate; return a row per estimator, beside the truth on the same requests."""
    path = Path(config.state) / "candidate.toml"
    path.write_text(CANDIDATES[name])
    candidate = load_candidate(config, str(path))
    listening = Listening.of(config, load_policy(config, "live", "live"))
    drawn = draw_slates(candidate.stages, requests, slates.item[:, :, None], derive_draw_seeds(requests.seed, 1))  # type: ignore[arg-type]
    truth = listening.compute_chances(requests, drawn.item[0]).sum(axis=1).mean()
    shown = listening.compute_chances(requests, slates.item).sum(axis=1).mean()
    found = evaluate_candidate(config, candidate, Question(metrics=(METRIC,), slates=len(slates), draws=draws), reader)
    rows = []
    for estimator in ESTIMATORS:
        value, difference = found.values[estimator].slate, found.differences[estimator].slate
        rows.append(
            {
                "candidate": name, "estimator": estimator, "true": truth, "estimate": value.value, "±": value.error,
                "true difference": truth - shown, "difference": difference.value, "± difference": difference.error,
                "covered": "yes" if value.low <= truth <= value.high else "no",
                "supported": found.support.slate_share.value, "effective": found.support.slate_effective,
                "clipped": found.clipping.share, "verdict": found.verdict,
                "reproduced": found.reproduced,
            }
        )  # fmt: skip
    return rows
