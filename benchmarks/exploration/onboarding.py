"""Satisfaction of new users' first ten slates after no questions, popular ones, and those that teach most.

The newest bundle of a deployment of the world answers in this process. New listeners of the simulated population answer
`--questions` questions; those who know the track (the more popular, the likelier) like it or not by their true taste.
Their answers are events; then they visit ten times, and what they do is in the next request. All policies meet the same
listeners with the same random numbers. Intervals are paired by user.

    python -m benchmarks onboarding deployments/configs/world.toml
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.exploration.event_book import EventBook, number_items, number_tracks
from benchmarks.report import write_report
from handsell.bundles.opening import open_bundles
from handsell.bundles.stages import Stages, load_stages
from handsell.config import Config, load_config
from handsell.core.errors import HandsellError
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.core.units import DAY_US, HOUR_US, MINUTE_US
from handsell.data.world.preference import utility
from handsell.data.world.session_simulation import play_chance
from handsell.evaluation.intervals import compare
from handsell.jobs.train.retrievers import read_interactions
from handsell.onboarding.question_choice import choose_questions
from handsell.onboarding.question_fitting import fit_questions
from handsell.onboarding.question_model import QuestionModel
from handsell.simulation.behavior import respond
from handsell.simulation.keyed_draws import draw_keyed
from handsell.simulation.population import Population, build_population
from handsell.simulation.population_state import PopulationState
from handsell.simulation.visits import Visits

ANSWER, KNOW = 101, 102  # purposes of random numbers
HOURS = (8, 13, 19, 23)  # over which taste is averaged: listeners want other tracks in the morning than at night
FIRST_VISIT_US = 10 * HOUR_US
CHUNK = 64
Ask = Callable[[np.ndarray, np.ndarray, np.ndarray], int]  # liked, disliked, asked places → the next place


@dataclass(frozen=True)
class Newcomers:
    """Listeners who join, and the deployment that they meet."""

    population: Population
    rows: np.ndarray  # (N,) rows of the population
    stages: Stages
    model: QuestionModel
    tracks: np.ndarray  # catalog numbers
    items: np.ndarray  # tracks by catalog number


def build_newcomers(config: Config, users: int, seed: int, skip: int = 0) -> Newcomers:
    """Open the newest bundle, and draw listeners beyond the first `skip` ones, with which settings were chosen."""
    store = open_bundles(config)
    path = store.local_path(store.list()[-1])
    stages = load_stages(path)
    model = QuestionModel.load(path / "onboarding")
    if model is None:
        model = fit_questions(read_interactions(config, Layout(config.state).interactions), config.onboarding)
    population = build_population(config.data.world, days=1, users=1, seed=seed, new_users_per_day=skip + users)
    rows = np.arange(population.old_users + skip, len(population))
    tracks, items = number_tracks(stages.snapshot, len(population.tracks)), number_items(stages.snapshot)
    return Newcomers(population, rows, stages, model, tracks, items)


def answer(of: Newcomers, rows: np.ndarray, track: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whether listeners (B,) know the tracks (B,), and whether they like them."""
    population = of.population
    hours = [population.compute_states(rows, np.full(len(rows), population.start + h * HOUR_US)) for h in HOURS]
    chance = play_chance(np.mean([utility(population.tracks, now, track[:, None])[:, 0] for now in hours], axis=0))
    rank = np.argsort(np.argsort(population.tracks.weight)) / len(population.tracks)
    number = population.people.number[rows]
    known = draw_keyed(population.seed, KNOW, number, track) < 0.2 + 0.7 * rank[track] ** 2  # type: ignore[arg-type]
    return known, draw_keyed(population.seed, ANSWER, number, track) < chance  # type: ignore[arg-type]


def ask_users(of: Newcomers, book: EventBook, ask: Ask, questions: int) -> float:
    """Ask each listener; return the share of questions that were answered with a like."""
    likes = 0
    for row in of.rows.tolist():
        liked: list[int] = []
        disliked: list[int] = []
        asked: list[int] = []
        for q in range(questions):
            place = ask(*(np.array(part, np.int64) for part in (liked, disliked, asked)))
            track = of.items[of.model.item[place]]
            (knows,), (likes_it,) = answer(of, np.array([row]), np.array([track]))
            asked.append(place)
            if knows:
                (liked if likes_it else disliked).append(place)
                time = of.population.start + FIRST_VISIT_US - (questions - q) * MINUTE_US
                book.add(row, int(track), "like" if likes_it else "skip", time)
        likes += len(liked)
    return likes / (len(of.rows) * max(questions, 1))


def choose_popular(of: Newcomers) -> Ask:
    return lambda liked, disliked, asked: len(asked)  # questions are ordered by popularity


def choose_informative(of: Newcomers) -> Ask:
    def ask(liked: np.ndarray, disliked: np.ndarray, asked: np.ndarray) -> int:
        allowed = np.ones(len(of.model), bool)
        allowed[asked] = False
        return int(choose_questions(of.model, liked, disliked, allowed, 1).place[0])

    return ask


def visit(of: Newcomers, book: EventBook, visits: int, n: int = 10) -> np.ndarray:
    """Let every listener visit; return the true satisfaction with each slate, (N, visits)."""
    population = of.population
    state, found = PopulationState.start(population), np.zeros((len(of.rows), visits))
    for v in range(visits):
        time = population.start + v * DAY_US + FIRST_VISIT_US + 3 * v * HOUR_US % DAY_US
        for begin in range(0, len(of.rows), CHUNK):
            rows = of.rows[begin : begin + CHUNK]
            filled = np.full(len(rows), v, np.int64)
            requests = book.build_requests(rows.tolist(), np.full(len(rows), time))
            slates = run_local(of.stages.funnel.recommend(requests, n))
            about = Visits(
                rows, population.people.number[rows], filled, np.zeros_like(filled), np.full(len(rows), time)
            )
            shown = np.where(slates.item >= 0, of.items[np.maximum(slates.item, 0)], -1)
            responses = respond(population, state, about, shown)
            book.add_responses(about, responses)
            found[begin : begin + CHUNK, v] = responses.satisfaction
    return found


def measure(of: Newcomers, ask: Ask | None, questions: int, visits: int) -> tuple[float, np.ndarray]:
    """Return the share of likes among the questions, and the satisfaction (N, visits)."""
    book = EventBook(of.stages.config, of.stages.snapshot, of.tracks)
    likes = 0.0 if ask is None else ask_users(of, book, ask, questions)
    return likes, visit(of, book, visits)


def describe(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Describe the difference of the means (N,) per user, with its paired 95 % interval."""
    found = compare(ours, theirs, np.arange(len(ours)))
    return f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def build_rows(of: Newcomers, questions: list[int], visits: int) -> list[dict[str, Any]]:
    none = measure(of, None, 0, visits)[1]
    rows = [build_row("none", 0, 0.0, none, none, none)]
    for count in questions:
        _, popular = found = measure(of, choose_popular(of), count, visits)
        rows.append(build_row("popular", count, *found, none, popular))
        rows.append(build_row("informative", count, *measure(of, choose_informative(of), count, visits), none, popular))
    return rows


def build_row(
    policy: str, questions: int, likes: float, values: np.ndarray, none: np.ndarray, popular: np.ndarray
) -> dict[str, Any]:
    first, mean = values[:, 0], values.mean(axis=1)
    return {
        "policy": policy,
        "questions": questions,
        "likes": likes,
        "first slate": float(first.mean()),
        "ten slates": float(mean.mean()),
        "ten slates − none": describe(mean, none.mean(axis=1)),
        "ten slates − popular": describe(mean, popular.mean(axis=1)),
        "first − popular": describe(first, popular[:, 0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--skip", type=int, default=150, help="first listeners, with which the settings were chosen")
    parser.add_argument("--questions", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--visits", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        of = build_newcomers(load_config(options.config), options.users, options.seed, options.skip)
    except HandsellError as error:
        sys.exit(str(error))
    rows = build_rows(of, options.questions, options.visits)
    write_report("onboarding", rows, vars(options) | {"config": str(options.config)})


if __name__ == "__main__":
    main()
