"""A reused slate is the one that would be computed: of two gateways with the same requests, one keeps nothing."""

import itertools
import random
from dataclasses import replace

import pytest
import tomli_w

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.errors import RequestError
from handsell.core.paths import Layout
from handsell.events.store.interface import CatalogChange
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.reranking.config import RerankingConfig
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.graph.loaded_bundle import LoadedBundle, load_bundle
from handsell.serving.graph.loading import open_bundle
from handsell.serving.graph.service import Service
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.serving.http import queries, schemas
from handsell.serving.telemetry.observability import Metrics
from serving_world import ITEMS, PromptStore, World, publish_other_bundle, write_world

USERS = ("u1", "u2", "u19", "new", None)
STEPS = 300
REUSE_S = 30
SETTINGS = {
    "as shipped": ({}, "slate"),
    "exploration": ({"exploration": {"share": 0.5, "positions": (2, 4)}}, "candidates"),
    "ignored items": ({"fatigue": {"weight": 1.0}}, "slate"),
    "rules": ({"rules": "rules.toml"}, "candidates"),
}
RULES = (
    [{"name": "here", "kind": "pin", "items": "item.item_id == 'i46'", "position": 1}],
    [{"name": "some", "kind": "quota", "items": "'red' in item.tags", "share": 0.7, "per": "day"}],
)


class SteppedClock:
    """The service clock of both gateways, which stands still between steps."""

    def __init__(self, time_us: int):
        self.time_us = time_us

    offset_us = 0

    def now(self) -> int:
        return self.time_us

    def from_wall(self, wall_us: int) -> int:
        return wall_us


class Shop:
    """Two gateways on the same stores and the same clock: `kept` reuses, `plain` computes every answer."""

    def __init__(self, world: World, reranking: dict, log: SqliteWriter, clock: SteppedClock):
        self.world, self.log, self.clock = world, log, clock
        self.store = PromptStore(world.config, world.rows)
        self.reranking = RerankingConfig.model_validate(reranking)
        self.kept, self.plain = (self._open(size) for size in (10_000_000, 0))
        self.bundle, self.ids = world.bundle, itertools.count()

    def _open(self, reuse_bytes: int) -> Service:
        metrics = Metrics()
        self.metrics = metrics if reuse_bytes else self.metrics
        return Service(self._load(self.world.bundle, reuse_bytes, metrics), LocalSink(self.log), metrics)

    def _load(self, bundle: str, reuse_bytes: int, metrics: Metrics) -> LoadedBundle:
        opened = open_bundle(str(self.world.config.source), bundle)
        config = self._change(opened.config, reuse_bytes)
        opened = replace(opened, config=config)
        loaded = load_bundle(opened, load_local_stages(opened), self.store, metrics)
        loaded.clock = self.clock
        return loaded

    def _change(self, config: Config, reuse_bytes: int) -> Config:
        surfaces = dict(config.surfaces)
        surfaces["email"] = surfaces["email"].model_copy(update={"seen_on": ("email",), "reuse_seconds": REUSE_S})
        serving = config.serving.model_copy(
            update={
                "reuse_bytes": reuse_bytes,
                "feature_log_share": 0.0,
                "bundle_check_s": 3_600,
                "deadline_ms": 60_000,
            }
        )
        return config.model_copy(update={"surfaces": surfaces, "serving": serving, "reranking": self.reranking})

    def promote(self, bundle: str) -> None:
        for service, size in ((self.kept, 10_000_000), (self.plain, 0)):
            service.switch_to(self._load(bundle, size, service.metrics))

    def change_item(self, item: str, action: str, **fields) -> None:
        self.log.append_changes([CatalogChange("item", item, action, fields, self.clock.now())]).result()
        for service in (self.kept, self.plain):
            service.bundle.catalog.read()

    def write_rules(self, rules: list[dict]) -> None:
        (self.world.config.source.parent / "rules.toml").write_text(tomli_w.dumps({"rule": rules}))
        for service in (self.kept, self.plain):
            for _ in range(2):
                service.bundle.stages.reranking.rules.reload_if_changed()

    async def ask(self, body) -> dict:
        """Return the answer of the gateway that reuses, which must be that of the other one."""
        drawn = f"{next(self.ids):032x}"
        answers = []
        for service in (self.kept, self.plain):
            queries.new_id = lambda: drawn  # by which exploration draws
            try:
                if isinstance(body, schemas.SimilarItemParameters):
                    answers.append(await service.similar(body.item_id, body, is_shown=False))
                else:
                    answers.append(await service.recommend(body, is_shown=False))
            except RequestError as error:
                answers.append(str(error))
        found, expected = (a if isinstance(a, str) else a.model_dump(exclude={"debug"}) for a in answers)
        assert found == expected, body
        return answers[0]

    def count_reused(self, part: str) -> float:
        name = "handsell_reused_slates_total"
        return sum(
            s.value for m in self.metrics.registry.collect() for s in m.samples
            if s.name == name and s.labels["part"] == part
        )  # fmt: skip

    async def close(self) -> None:
        await self.kept.close()
        await self.plain.close()


@pytest.fixture(params=SETTINGS)
async def shop(request, tmp_path, monkeypatch):
    reranking, part = SETTINGS[request.param]
    (tmp_path / "rules.toml").write_text(tomli_w.dumps({"rule": RULES[0]}))
    world = write_world(tmp_path)
    monkeypatch.setattr(queries, "new_id", queries.new_id)
    with SqliteWriter(Layout(world.config.state).event_log) as log:
        clock = SteppedClock(open_bundle(str(world.config.source), "live").manifest.created_us + 60_000_000)
        made = Shop(world, reranking, log, clock)
        yield made, part
        await made.close()


def draw_request(draw: random.Random, snapshot: Snapshot):
    """A request for a slate of one of a few shapes."""
    user_id, visitor = draw.choice(USERS), draw.choice((None, "visitor"))
    if draw.random() < 0.15:
        return schemas.SimilarItemParameters(
            item_id=f"i{draw.randrange(4)}", count=draw.choice((None, 3)), include=["debug"]
        )
    played = [{"type": "play", "item_id": "i3"}, {"type": "like", "item_id": "i90", "timestamp": 1_600_000_000_000}]
    return schemas.RecommendationsBody.model_validate(
        {
            "user_id": user_id,
            "anonymous_id": visitor,
            "surface": draw.choice(("home", "home", "email", "similar")),
            "count": draw.choice((None, 5, 12)),
            "filter": draw.choice((None, None, "'red' in item.tags")),
            "session": draw.choice((None, None, {"events": played[: draw.randint(1, 2)]})),
            "basket": draw.choice((None, None, None, {"item_ids": ["i10"]})),
            "exclude": draw.choice(
                (None, None, {"item_ids": ["i1", "i20"]}, {"tags": [snapshot.tags.ids([0])[0]]},
                 {"creators": [snapshot.creators.ids([0])[0]]})
            ),
            "include": draw.choice((["debug"], ["debug", "metadata"])),
        }
    )  # fmt: skip


async def change_something(draw: random.Random, shop: Shop, user: str, last: list[str]) -> None:
    """Do one of the things after which an answer may be another; the last slate had the items `last`, for the user."""
    now = shop.clock.now()
    item = draw.choice(last) if last else f"i{draw.randrange(ITEMS)}"
    match draw.choice(
        ("event", "event", "item", "item", "delete", "blocks", "shown", "shown", "row", "rules", "time", "bundle")
    ):
        case "event":
            kind = draw.choice(("play", "like", "skip", "impression"))
            event = {"user_id": user, "type": kind, "item_id": item, "time": now - draw.choice((1, 60_000_000))}
            shop.log.append([event]).result()
        case "item":
            shop.change_item(item, "patch", available=draw.random() < 0.5, tags=draw.choice((["red"], [])))
        case "delete":
            shop.change_item(item, "delete")
        case "blocks":
            tags = draw.choice(([], ["red"]))
            shop.log.put_blocks(user, [], tags).result()
        case "shown":
            number = next(shop.ids)
            slate = {
                "recommendation_id": f"shown{number}", "gateway": "other", "sequence": number, "time": now - 1,
                "user_id": user, "surface": draw.choice(("home", "email")), "bundle": "b",
                "items": f'{{"item_id":["{item}"],"score":[1],"propensity":[1],"sources":[[]]}}',
            }  # fmt: skip
            shop.log.append_slates([slate]).result()
        case "row":
            shop.store.rows[user] = {**shop.store.rows[f"u{draw.randrange(3, 18)}"], "user_number": None}
        case "rules" if shop.reranking.rules:
            shop.write_rules(draw.choice(RULES))
        case "time":
            shop.clock.time_us += draw.choice((REUSE_S, 20 * 60)) * 1_000_000
        case "bundle" if draw.random() < 0.2:
            shop.promote(publish_other_bundle(shop.world, draw.randrange(1, 10_000)))


@pytest.mark.slow
async def test_no_sequence_of_requests_and_changes_gives_another_slate(shop):
    shop, part = shop
    draw, recent, last = random.Random(5), [], []
    for _ in range(STEPS):
        if recent and draw.random() < 0.3:
            await change_something(draw, shop, name_user(recent[-1]), last)
        body = draw.choice(recent[-3:]) if recent and draw.random() < 0.7 else draw_request(draw, shop.world.snapshot)
        recent.append(body)
        answer = await shop.ask(body)
        if not isinstance(answer, str):
            last = [item.item_id for item in answer.items]
    assert shop.count_reused(part) > STEPS / 10


def name_user(body) -> str:
    """Return the user of a request as the stores have it."""
    return queries.make_user_key(body.user_id, body.anonymous_id) or "new"
