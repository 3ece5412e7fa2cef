"""How often guard rails stop a healthy arm, and how long a broken one answers.

Users differ in activity (log-normal), in latency and in how often their answers are degraded or short; single seconds
are bad for both arms, and single batches are lost in one of them. Without a defect this is an A/A test with a look
every second.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.report import write_report
from handsell.serving.guard_rails.config import GuardRails
from handsell.serving.guard_rails.counts import OutcomeCounter, SlateOutcome
from handsell.serving.guard_rails.first_slates import CLICK, Finished
from handsell.serving.guard_rails.rails import ArmRails

BAD_SECOND, LOST_BATCH = 0.01, 0.003  # probability per second, and per second and arm
DEFECTS: dict[str, dict[str, float]] = {
    "every answer fails": {"failed": 1.0},
    "half of the answers fail": {"failed": 0.5},
    "every answer is degraded": {"degraded": 1.0},
    "a tenth of the answers is degraded": {"degraded": 0.15},
    "answers take 10 times as long": {"slower": 10.0},
    "slates are empty": {"items": 0.0},
    "slates lack diversity": {"diversity": 0.3},
    "a tenth of the clicks": {"clicks": 0.1},
}


@dataclass(frozen=True)
class Users:
    arm: np.ndarray  # (U,) bool
    weight: np.ndarray  # (U,) share of requests
    slower: np.ndarray
    degraded: np.ndarray
    short: np.ndarray
    clicks: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, users: int, share: float) -> Users:
        weight = rng.lognormal(0, 1.5, users)
        return cls(
            rng.random(users) < share,
            weight / weight.sum(),
            rng.lognormal(0, 0.3, users),
            rng.beta(0.05, 2.0, users),
            rng.beta(0.05, 1.0, users),
            rng.beta(0.5, 2.0, users),
        )


def run(
    seed: int, seconds: int, requests: int, users: int, share: float, defect: dict[str, float]
) -> tuple[int, str] | None:
    """Return the second and the rail of the first stop, None without one."""
    rng = np.random.default_rng(seed)
    people = Users.draw(rng, users, share)
    rails, counter, seen = ArmRails(GuardRails()), OutcomeCounter(), np.zeros(users, bool)
    for second in range(seconds):
        chosen = rng.choice(users, rng.poisson(requests), p=people.weight)
        bad = rng.random() < BAD_SECOND
        lost = rng.random(2) < LOST_BATCH
        for user, outcome in answer(rng, people, chosen, bad, lost, defect):
            counter.record({"x": "arm" if people.arm[user] else "control"}, outcome)
        counts = counter.take()
        rails.add(counts.get(("x", "arm")), counts.get(("x", "control")))
        first = np.unique(chosen[~seen[chosen]])
        seen[first] = True
        rails.add_finished(
            *(click(rng, people, first[people.arm[first] == arm], defect if arm else {}) for arm in (True, False))
        )
        if reason := rails.find_violation():
            return second + 1, reason.split(":")[0]
    return None


def answer(
    rng: np.random.Generator, people: Users, chosen: np.ndarray, bad: bool, lost: np.ndarray, defect: dict[str, float]
) -> Iterator[tuple[int, SlateOutcome]]:
    n = len(chosen)
    seconds = rng.lognormal(-4, 0.5, n) * people.slower[chosen] * (5 if bad else 1)
    degraded = rng.random(n) < np.maximum(people.degraded[chosen], 0.5 * bad)
    items = np.where(rng.random(n) < people.short[chosen], 2, 10)
    diversity, broken = rng.beta(8, 4, n), rng.random(n)
    for i, user in enumerate(chosen.tolist()):
        mine = defect if people.arm[user] else {}
        yield (
            user,
            SlateOutcome(
                user + 1,
                seconds[i] * mine.get("slower", 1.0),
                failed=bool(broken[i] < mine.get("failed", 0.0) or lost[int(people.arm[user])]),
                degraded=bool(degraded[i] or broken[i] < mine.get("degraded", 0.0)),
                items=int(items[i] * mine.get("items", 1.0)),
                requested=10,
                diversity=diversity[i] * mine.get("diversity", 1.0),
            ),
        )


def click(rng: np.random.Generator, people: Users, users: np.ndarray, defect: dict[str, float]) -> Finished:
    clicked = rng.random(len(users)) < people.clicks[users] * defect.get("clicks", 1.0)
    return Finished(len(users), Counter({CLICK: int(clicked.sum())}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=300, help="A/A tests")
    parser.add_argument("--seconds", type=int, default=300, help="length of each, with a look every second")
    parser.add_argument("--broken", type=int, default=20, help="runs of each defect")
    parser.add_argument("--requests", type=float, default=20.0, help="per second")
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--share", type=float, default=0.2, help="of users in the arm")
    parser.add_argument("--first-seed", type=int, default=0)
    args = parser.parse_args()
    size = (args.seconds, args.requests, args.users, args.share)
    rows = []
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    for name, defect, runs in [("none (A/A)", {}, seeds), *((n, d, seeds[: args.broken]) for n, d in DEFECTS.items())]:
        found = [stop for seed in runs if (stop := run(seed, *size, defect)) is not None]
        seconds = np.array([second for second, _ in found])
        rows.append(
            {
                "defect": name,
                "runs": len(runs),
                "stopped": len(found),
                "median s": float(np.median(seconds)) if len(found) else float("nan"),
                "p90 s": float(np.quantile(seconds, 0.9)) if len(found) else float("nan"),
                "by": ", ".join(sorted({rail for _, rail in found})),
            }
        )
    about = {"requests per second": args.requests, "users": args.users, "share of the arm": args.share}
    write_report("guard_rails", rows, {**about, "seconds": args.seconds, "stated level": GuardRails().false_stops})


if __name__ == "__main__":
    main()
