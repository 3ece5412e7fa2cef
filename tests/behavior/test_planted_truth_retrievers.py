"""Retrievers find planted neighbors."""

from pkgutil import resolve_name

import numpy as np
import pytest

from handsell.retrieval import registry
from handsell.retrieval.config import retrievers
from handsell.testing.planted_taste import (
    BLOCKS,
    CONFIG,
    allow_all,
    build_requests,
    find_block,
    plant_blocks,
    plant_changed_tastes,
)

ITEMS, UNTOUCHED = 80, 8
LINEAR = ("spectral", "svd", "ease", "user_knn")
SESSION = ("session_knn", "transitions", "bought_together")
LEARNING = ("item_knn", "als", "two_tower", "sasrec", "content", "blend", *LINEAR)


@pytest.fixture(scope="module")
def planted():
    return plant_blocks(np.random.default_rng(5), items=ITEMS, untouched=UNTOUCHED)


@pytest.fixture(scope="module")
def models(planted):
    events, content = planted
    return {name: registry.fit(name, events, CONFIG, content) for name in retrievers()}


@pytest.mark.parametrize("name", (*LEARNING, *SESSION))
def test_a_new_user_with_three_likes_gets_items_of_their_block(models, name):
    asked = build_requests(*([(b, 1.0), (b + BLOCKS, 1.0), (b + 2 * BLOCKS, 2.0)] for b in range(BLOCKS)))
    items, _ = models[name].retrieve(asked, 10, allow_all(asked, ITEMS))
    found = items != -1
    right = find_block(items) == np.arange(BLOCKS)[:, None]
    assert found.sum(axis=1).min() >= 8 and right[found].mean() > 0.9


@pytest.mark.parametrize("name", LEARNING)
def test_a_dislike_lowers_the_neighbors(name):
    """The user likes blocks 0 and 1 equally; dislikes of block 1 must favor block 0."""
    events, content = plant_changed_tastes(np.random.default_rng(6), items=ITEMS)
    model = registry.fit(name, events, CONFIG, content)
    likes = [(0, 1.0), (1, 1.0), (4, 1.0), (5, 1.0)]
    asked = build_requests(likes, [*likes, (9, -1.0), (13, -1.0)])
    others = np.arange(20, ITEMS)
    before, after = model.score(asked, np.tile(others, (2, 1)))
    change = after - before
    assert change[find_block(others) == 1].mean() < change[find_block(others) == 0].mean() - 1e-3


@pytest.mark.parametrize("name", ["two_tower", "sasrec", "content"])
def test_items_without_events_are_found_by_content(models, name):
    untouched = np.arange(ITEMS - UNTOUCHED, ITEMS)
    asked = build_requests([(2, 1.0), (6, 1.0), (10, 1.0)])
    only_new = np.zeros((1, ITEMS), bool)
    only_new[:, untouched] = True
    items, _ = models[name].retrieve(asked, 2, only_new)
    assert (find_block(items) == 2).all()


@pytest.mark.parametrize("name", ["item_knn", "als", *LINEAR, *SESSION])
def test_items_without_events_are_unknown_to_models_of_interactions(models, name):
    asked = build_requests([(2, 1.0), (6, 1.0)])
    items, _ = models[name].retrieve(asked, ITEMS, allow_all(asked, ITEMS))
    assert items.max() < ITEMS - UNTOUCHED


def test_the_most_liked_item_leads_popularity(planted, models):
    events, _ = planted
    asked = build_requests([])
    items, _ = models["popularity"].retrieve(asked, 1, allow_all(asked, ITEMS))
    age_days = (events.time.max() - events.time) / 86_400_000_000
    liked = events.weight > 0
    mass = np.bincount(events.item[liked], (events.weight * 0.5 ** (age_days / 7.0))[liked], minlength=ITEMS)
    assert items[0, 0] == mass.argmax()


@pytest.fixture
def fit_files(planted, tmp_path, configured):
    """The planted events in two Parquet parts, their content, and the config of a neural retriever's fit on Ray."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    events, content = planted
    (tmp_path / "fit").mkdir()
    for part in range(2):
        mine = events.where(events.user // BLOCKS % 2 == part)
        columns = {name: getattr(mine, name) for name in ("user", "item", "type", "time", "weight")}
        pq.write_table(pa.table(columns), tmp_path / "fit" / f"part-0000{part}.parquet")
    content.save(tmp_path / "content")

    def config(name, **dials):
        section = CONFIG[name].model_copy(update=dials)
        return configured('name = "planted"').model_copy(update={"retrieval": CONFIG.with_sections({name: section})})

    return config, tmp_path / "fit", tmp_path / "content"


@pytest.mark.slow  # starts workers of Ray Train
def test_two_ray_workers_find_the_same_blocks(planted, ray_cluster, fit_files, tmp_path):
    from handsell.jobs.train.windows import CatalogSizes

    config, fit, content = fit_files
    sizes = CatalogSizes(planted[0].n_users, planted[0].n_items)
    settings = config("two_tower", workers=2, epochs=8, hard_negatives=2)
    resolve_name(retrievers()["two_tower"].job)(settings, fit, content, sizes, tmp_path / "out")
    model = registry.load("two_tower", tmp_path / "out")
    asked = build_requests(*([(b, 1.0), (b + BLOCKS, 1.0), (b + 2 * BLOCKS, 2.0)] for b in range(BLOCKS)))
    items, _ = model.retrieve(asked, 10, allow_all(asked, ITEMS))
    assert (find_block(items) == np.arange(BLOCKS)[:, None]).mean() > 0.9


@pytest.mark.slow
def test_a_killed_worker_does_not_change_the_model(planted, ray_cluster, fit_files, tmp_path):
    from handsell.jobs.train.distributed.neural import fit_on_workers
    from handsell.jobs.train.distributed.sasrec import build_model
    from handsell.jobs.train.windows import CatalogSizes

    config, fit, content = fit_files
    config = config("sasrec", epochs=4, initial_vectors="pairs")
    killed = tmp_path / "killed"

    def dying(arguments):
        import os

        from handsell.jobs.train.distributed import neural, sasrec

        report = neural.TrainWorker.report

        def report_and_die(worker, line, metrics, state):
            report(worker, line, metrics, state)
            if metrics["epoch"] == 2 and not killed.exists():
                killed.touch()
                os._exit(1)

        neural.TrainWorker.report = report_and_die
        sasrec.train_worker(arguments)

    sizes = CatalogSizes(planted[0].n_users, planted[0].n_items)
    fit_on_workers("sasrec", dying, build_model, config, fit, content, sizes, tmp_path / "out")
    model = registry.load("sasrec", tmp_path / "out")
    here = registry.fit("sasrec", planted[0], config.retrieval, planted[1])
    assert killed.exists()
    assert np.allclose(model.vectors, here.vectors, atol=1e-6)
