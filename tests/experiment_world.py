"""A small deployment with experiments, and the slates that its arms should get."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from handsell.bundles.stages import load_stages
from handsell.bundles.store import BundleStore
from handsell.config import Config, load_config
from handsell.config.overlay import apply_overlay, build_overlay
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.features.request_builder import build_requests_from_rows
from impressions import wait_for_impression
from serving_world import World, write_world

USERS = [f"u{i}" for i in range(18)]
BOLD = "reranking = { diversity = 0.9, calibration = 0.0, novelty = 0.9 }\nweights = { popularity = 9.0 }\n"


def write_experiments(folder: Path, toml: str, port: int = 18_000) -> World:
    """Write the small deployment with these tables at the end of its config."""
    world = write_world(folder, port)
    return change_experiments(world, toml)


def change_experiments(world: World, toml: str) -> World:
    path = world.config.source
    path.write_text(path.read_text().partition("# experiments\n")[0] + "# experiments\n" + toml)
    return replace(world, config=load_config(path))


def two_arms(name: str, bold: str, **keys: str) -> str:
    """An experiment of control and bold with equal shares; `bold` are lines of that arm."""
    lines = [f"[experiments.{name}]", *(f"{key} = {value}" for key, value in keys.items())]
    arms = f"[experiments.{name}.arms.control]\nshare = 0.5\n[experiments.{name}.arms.bold]\nshare = 0.5\n{bold}\n"
    return "\n".join(lines) + "\n" + arms


def expect_slate(
    world: World, config: Config, user_id: str, time: int, n: int, bundle: str = "", surface: str = "home"
) -> list[str]:
    """Compute the slate in this process, from the stored row through the funnel of a config."""
    path = BundleStore(Layout(world.config.state).bundles).local_path(bundle or world.bundle)
    stages = load_stages(path, config)
    rows, on = world.store().online_users([user_id]), np.array([config.surface_names.index(surface)], np.int8)
    requests = build_requests_from_rows(rows, stages.snapshot, config, np.array([time]), on)
    slates = run_local(stages.funnel.recommend(requests, n))
    return stages.snapshot.items.ids(slates.item[0][slates.item[0] >= 0])


def arm_config(world: World, experiment: str, arm: str) -> Config:
    """The config with an arm's settings."""
    found = world.config.experiments[experiment]
    return apply_overlay(world.config, build_overlay(world.config, [(found, found.arms[arm])]))


async def read_logged(world: World, recommendation_id: str) -> dict[str, list]:
    """Wait for the impression of an answer."""
    return await asyncio.to_thread(wait_for_impression, world.config, recommendation_id)


def read_arms(logged: dict[str, list]) -> dict[str, str]:
    return {} if logged["arms"][0] is None else json.loads(logged["arms"][0])


def item_ids(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]
