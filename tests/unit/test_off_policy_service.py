"""`handsell ope` on the log of a service: rebuilt requests, probabilities of both policies, refusals."""

import asyncio
import json
from dataclasses import replace
from itertools import count

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from handsell.catalog.vocabulary import Vocabulary
from handsell.cli.app import app
from handsell.config import load_config
from handsell.core.batches import NONE
from handsell.core.errors import ConfigError, DataError
from handsell.core.hashing import derive_seed
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.data.interaction_parts import write_order, write_part
from handsell.data.numbering import SETTLED
from handsell.events.store.opening import open_reader, open_writer
from handsell.experiments.off_policy.candidate import load_candidate, load_policy
from handsell.experiments.off_policy.estimators import SlateRewards, compute_weights
from handsell.experiments.off_policy.evaluation import (
    Question,
    Redrawn,
    estimate_candidate,
    evaluate_candidate,
    leave_out_interleaved,
)
from handsell.experiments.off_policy.logged_impressions import OUTCOMES, SHOWN, build_slates, read_slates
from handsell.experiments.off_policy.probabilities import combine_propensities, derive_draw_seeds, draw_slates
from handsell.experiments.off_policy.requests_as_of import build_requests_as_of
from handsell.experiments.off_policy.support import NoSupport
from handsell.experiments.off_policy.value_tables import list_sentences
from handsell.features.rows import Vocabularies
from handsell.serving.http import queries
from serving_service import start_service
from serving_world import ITEMS, USERS, World, draw_interactions, draw_shop_snapshot, write_world

EXPLORATION = '\n[reranking.exploration]\nshare = 0.5\npositions = [1, 2, 3, 4, 5, 6]\nchoice = "uniform"\n'
QUIET = "[reranking.exploration]\nshare = 0.0\n"
SLATES, COUNT = 120, 6


def write_state(world: World) -> None:
    """Write what the data and feature jobs leave: catalog, numbered log and attributes of users."""
    layout, now = Layout(world.config.state), world.snapshot.as_of
    rng = np.random.default_rng(11)
    draw_shop_snapshot(rng, now)
    log, snapshot = draw_interactions(rng, now), world.snapshot
    users = Vocabulary.of(f"u{i}" for i in range(USERS))
    for name, one in zip(
        Vocabularies.__slots__, (users, snapshot.items, snapshot.creators, snapshot.tags), strict=True
    ):
        one.save(layout.catalog / name)
    n = len(log)
    columns = {name: getattr(log, name) for name in ("user", "item", "type", "time", "weight")}
    nulls = {name: pa.nulls(n) for name in ("position", "propensity", "surface", "recommendation_id", "alias")}
    keys = {"key": np.arange(n), "part": np.zeros(n, np.int32), "place": np.arange(n), "logged": log.time}
    every = {**columns, **nulls, **keys}
    write_part(
        layout.interactions / "part-00000.parquet",
        pa.table([pa.array(every[f.name]).cast(f.type) for f in SETTLED], schema=SETTLED),
    )
    write_order(layout.interactions, [0])
    layout.data_meta.parent.mkdir(parents=True, exist_ok=True)
    layout.data_meta.write_text(json.dumps({"events_through": 0}))
    profile = layout.features / "user_profile" / "part.parquet"
    profile.parent.mkdir(parents=True)
    pq.write_table(pa.table({"user_id": [f"u{i}" for i in range(USERS)], "user_number": np.arange(USERS)}), profile)


async def serve(world: World) -> None:
    """Ask for slates one after another; users play half of what they are shown, and the loop closes at once."""
    rng = np.random.default_rng(5)
    async with start_service(world) as (client, _):
        for n in range(SLATES):
            user = f"u{n % (USERS + 2)}"  # two of them are new
            answer = (await client.get(f"/v1/users/{user}/recommendations", params={"count": COUNT})).json()
            assert answer["degraded"] == []
            about = {"user_id": user, "recommendation_id": answer["recommendation_id"], "type": "play"}
            events = [{**about, "item_id": one["item_id"]} for one in answer["items"] if rng.random() < 0.5]
            if events:
                assert (await client.post("/v1/events", json={"events": events})).status_code == 202
        await asyncio.sleep(0.3)  # impressions are sent every 0.1 s; closing the service sends the rest


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ope")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDSELL_HOME", str(folder / "home"))
        world = write_world(folder)
        path = world.config.source
        patient = path.read_text().replace("deadline_ms = 4000", "deadline_ms = 60000")  # a late slate is another one
        path.write_text(patient + EXPLORATION)
        world = replace(world, config=load_config(path))
        write_state(world)
        ids = count()  # explored items are drawn from the ids of slates: the same log in every run
        patch.setattr(queries, "new_id", lambda: f"{next(ids):032x}")
        asyncio.run(serve(world))
        reader = open_reader(world.config)
        yield world, reader
        reader.close()


@pytest.fixture
def slates(shop):
    world, reader = shop
    return read_slates(world.config, reader, "served", ("play", "like"))


def test_every_slate_is_read_with_its_outcomes(slates):
    assert len(slates) == SLATES and slates.item.shape == (SLATES, COUNT)
    assert 0.35 < slates.reward.mean() < 0.65 and (slates.propensity < 1).mean() > 0.9
    assert (np.diff(slates.time) > 0).all()


def test_the_bundle_shows_every_logged_slate_again(shop, slates):
    """Requests rebuilt from logs, with the logged seeds, through the same funnel: the served items and propensities."""
    world, reader = shop
    policy = load_policy(world.config, world.bundle, "log")
    seeds = np.array([derive_seed(one) for one in slates.recommendation_id], np.uint64)
    requests = build_requests_as_of(slates, seeds, policy.stages.snapshot, policy.stages.config, reader)
    drawn = draw_slates(policy.stages, requests, slates.item[:, :, None], seeds[:, None])
    np.testing.assert_array_equal(drawn.item[0], slates.item)
    np.testing.assert_allclose(drawn.probability, slates.propensity, atol=1e-5)


def test_probabilities_of_a_position_add_up_to_one(shop, slates):
    world, reader = shop
    policy = load_policy(world.config, "live", "live")
    some = slates.take(slice(0, 20))
    seeds = derive_draw_seeds(np.arange(20, dtype=np.uint64), 3)
    requests = build_requests_as_of(some, seeds[:, 0], policy.stages.snapshot, policy.stages.config, reader)
    every = np.broadcast_to(np.arange(ITEMS, dtype=np.int32), (20, COUNT, ITEMS))
    drawn = draw_slates(policy.stages, requests, every, seeds)
    np.testing.assert_allclose(drawn.chance.sum(axis=3), 1.0, atol=1e-9)
    quiet = load_candidate(world.config, _write(world, QUIET))
    certain = draw_slates(quiet.stages, requests, every, seeds)
    assert len(certain.chance) == 1 and set(np.unique(certain.chance)) == {0.0, 1.0}
    assert (certain.chance[0].argmax(axis=2) == certain.item[0]).all()


def test_mean_probabilities_are_the_frequencies_of_many_draws(shop, slates):
    """One request, 1,000 seeds: below an exploring position, too, where the item depends on what was drawn above."""
    world, reader = shop
    policy = load_policy(world.config, "live", "live")
    some = slates.take(np.zeros(1, np.int64))
    seeds = derive_draw_seeds(np.ones(1, np.uint64), 1_000)
    requests = build_requests_as_of(some, seeds[:, 0], policy.stages.snapshot, policy.stages.config, reader)
    every = np.arange(ITEMS, dtype=np.int32)[None, None].repeat(COUNT, axis=1)
    drawn = draw_slates(policy.stages, requests, every, seeds)
    for k in range(COUNT):
        often = np.bincount(drawn.item[:, 0, k], minlength=ITEMS) / 1_000
        expected = drawn.chance[:, 0, k].mean(axis=0)
        assert np.abs(often - expected).max() < 4.5 * np.sqrt(0.25 / 1_000)


@pytest.mark.parametrize("draws", [1, 4])
def test_the_policy_that_logged_has_weights_of_one(shop, slates, draws):
    world, reader = shop
    policy = load_policy(world.config, "live", "live")
    seeds = derive_draw_seeds(np.array([derive_seed(r) for r in slates.recommendation_id], np.uint64), draws)
    requests = build_requests_as_of(slates, seeds[:, 0], policy.stages.snapshot, policy.stages.config, reader)
    drawn = draw_slates(policy.stages, requests, slates.item[:, :, None], seeds)
    propensity = combine_propensities(slates.propensity, drawn, np.ones(len(slates), bool))
    weights = compute_weights(SlateRewards(slates.reward, propensity, slates.user), drawn.probability)
    np.testing.assert_allclose(weights, 1.0, atol=2e-4)  # logged propensities have six digits


def test_a_candidate_is_estimated(shop):
    world, reader = shop
    live = evaluate_candidate(world.config, load_candidate(world.config, "live"), Question(), reader)
    assert live.reproduced == 1 and live.verdict == "undecided" and not live.refusal
    assert abs(live.differences["ips"].slate.value) < 1e-3
    quiet = load_candidate(world.config, _write(world, QUIET))
    found = evaluate_candidate(world.config, quiet, Question(draws=32), reader)
    assert found.support.slate_share.value > 0.9 and not found.refusal
    slate = found.values["self_normalized"].slate
    assert abs(slate.value - 3) < slate.high - slate.low  # half of six, within four standard errors
    json.dumps(found.as_dict(), allow_nan=False)


def test_what_the_log_never_shows_is_refused(shop, tmp_path):
    """A log without exploration knows nothing of other items."""
    world, reader = shop
    slates = read_slates(world.config, reader, "served", ("play",))
    policy = load_candidate(world.config, _write(world, f"[reranking]\nstrength = 1.0\nnovelty = 1.0\n{QUIET}"))
    seeds = np.zeros(len(slates), np.uint64)
    requests = build_requests_as_of(slates, seeds, policy.stages.snapshot, policy.stages.config, reader)
    plain = load_candidate(world.config, _write(world, QUIET))
    shown = draw_slates(plain.stages, requests, slates.item[:, :, None], seeds[:, None]).item[0]
    drawn = draw_slates(policy.stages, requests, shown[:, :, None], seeds[:, None])
    log = replace(slates, item=shown, propensity=np.ones(shown.shape))
    found = estimate_candidate(policy, Question(), log, Redrawn(log.propensity), drawn)
    assert found.verdict == "refused" and found.as_dict()["slate"] is None
    assert found.support.slate_share.value == pytest.approx((drawn.item[0] == shown).mean())
    with pytest.raises(NoSupport, match=r"\[reranking.exploration\]"):
        found.support.require_slate()


def test_a_bundle_is_not_tested_on_what_it_has_learned_from(shop):
    world, reader = shop
    candidate = load_candidate(world.config, "live")
    later = candidate.manifest.model_copy(update={"data_end_us": world.snapshot.as_of + DAY_US})
    with pytest.raises(DataError, match=r"has learned from data until .* tested on what it has seen"):
        evaluate_candidate(world.config, replace(candidate, manifest=later), Question(), reader)
    with pytest.raises(DataError, match="got none: serve requests"):
        evaluate_candidate(world.config, candidate, Question(surface="email"), reader)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[reranking]\ndiversty = 0.3\n", "diversty"),
        ("[ranking]\nranked = 10\n", "Expected the keys of an experiment's arm"),
        ("weights = { unheard = 2.0 }\n", "expected enabled sources"),
        ("[reranking\n", "not readable TOML"),
        ("[reranking]\ndiversity = 7\n", "diversity"),
    ],
)
def test_wrong_candidates_are_refused_by_name(shop, text, message):
    world, _ = shop
    with pytest.raises(ConfigError, match=message):
        load_candidate(world.config, _write(world, text))


ARMS = """
[experiments.bolder]
surfaces = ["home"]
[experiments.bolder.arms.control]
share = 0.5
[experiments.bolder.arms.bold]
share = 0.5
reranking = { diversity = 0.2 }
weights = { item_knn = 2.0 }
"""


def test_an_arm_of_an_experiment_is_a_candidate(shop):
    world, _ = shop
    path = world.config.source.with_name("arms.toml")
    path.write_text(world.config.source.read_text() + ARMS)
    config = load_config(path)
    settings = load_candidate(config, "bolder.bold").stages.config
    assert settings.reranking.diversity == 0.2 and settings.retrieval["item_knn"].weight == 2.0
    with pytest.raises(ConfigError, match="has the arms control, bold, got 'none'"):
        load_candidate(config, "bolder.none")
    with pytest.raises(ConfigError, match="runs on home, got --surface email"):
        load_candidate(config, "bolder.bold", "email")


def test_the_command_prints_tables_and_json(shop):
    world, _ = shop
    path = _write(world, QUIET)
    found = CliRunner().invoke(app, ["ope", str(world.config.source), "--candidate", path, "--json"])
    value = json.loads(found.stdout)
    assert found.exit_code == 0 and value["log"]["slates"] == SLATES and value["log"]["reproduced"] == 1
    printed = CliRunner().invoke(app, ["ope", str(world.config.source), "--candidate", path, "--metric", "play"])
    assert printed.exit_code == 0 and "doubly robust" in printed.stdout and "a success is play" in printed.stdout


def test_outcomes_belong_to_the_item_of_their_slate(shop):
    world, _ = shop
    rows = [("a", "u", 10, 1, 5, 0.5), ("a", "u", 10, 2, 6, 0.25), ("b", None, 9, 1, 5, 0.1), ("b", None, 9, 1, 5, 0.1)]
    names = ("recommendation_id", "user_id", "time", "position", "item", "propensity")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    columns |= {"surface": ["home"] * 4, "bundle": [None] * 4, "interleaved": [False] * 4}
    shown = pa.table([pa.array(columns[f.name], f.type) for f in SHOWN], schema=SHOWN)
    done = [("a", 6), ("a", 7), ("b", 6), ("c", 5), ("a", 6), ("b", NONE)]
    outcomes = pa.table([pa.array(c) for c in zip(*done, strict=True)], names=OUTCOMES.names).cast(OUTCOMES)
    found = build_slates(shown, outcomes, world.config)
    assert found.recommendation_id.tolist() == ["b", "a"] and found.user.tolist() == [-1, 0]  # oldest first
    assert found.item.tolist() == [[5, NONE], [5, 6]] and found.reward.tolist() == [[0, 0], [0, 1]]
    assert np.isnan(found.propensity[0, 1]) and found.surface.tolist() == [0, 0]


def test_interleaved_slates_are_left_out_and_their_share_is_said(shop, slates):
    """The last test of this log: it adds slates, a sixth of all."""
    world, reader = shop
    time, policy = int(slates.time[-1]), load_candidate(world.config, "live")
    shown = {"item_id": ["i1"], "score": [0.5], "propensity": [0.5], "sources": [[]], "interleaved": "mix"}
    about = {"user_id": "u1", "surface": "home", "bundle": world.bundle, "gateway": "g", "items": json.dumps(shown)}
    rows = [{**about, "recommendation_id": f"m{n}", "sequence": n, "time": time + n} for n in range(1, SLATES // 5 + 1)]
    with open_writer(world.config) as writer:
        writer.append_slates(rows).result()
    found = evaluate_candidate(world.config, policy, Question(slates=40, draws=1), reader)
    assert len(found.logged) == 40 and found.reproduced == 1 and found.interleaved == pytest.approx(1 / 6)
    assert any(line.startswith("Left out: 16.7% of the slates") for line in list_sentences(found.as_dict()))
    several = read_slates(world.config, reader, "served", ("play",))
    with pytest.raises(DataError, match=r"all 24 slates on surface home .* are interleaved from two arms"):
        leave_out_interleaved(several.take(several.interleaved), Question())


def _write(world: World, text: str) -> str:
    path = world.config.source.parent / "candidate.toml"
    path.write_text(text)
    return str(path)
