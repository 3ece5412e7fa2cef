"""Training on GPUs: who takes one, in which precision, and that models are the same wherever they were trained."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from handsell.jobs.train.devices import build_scaling, choose_gpus, name_device
from handsell.ranking import fitting
from handsell.ranking.config import RankingConfig
from handsell.retrieval.models.sasrec import SASRecConfig
from handsell.retrieval.models.two_tower import TwoTowerConfig
from handsell.retrieval.neural import device, sasrec_training, two_tower_training
from handsell.retrieval.neural.training import read_weights
from handsell.retrieval.sentences import SentenceModel, use_device
from handsell.testing.planted_taste import plant_blocks

TWO_TOWER = TwoTowerConfig(embedding_size=8, hidden=8, epochs=2, batch_size=64)
SASREC = SASRecConfig(embedding_size=8, layers=1, length=10, epochs=2, batch_size=64)


@pytest.mark.parametrize(
    ("use_gpu", "workers", "gpus", "expected"),
    [
        ("auto", 1, 0, False),
        ("auto", 1, 1, True),
        ("auto", 2, 1, False),  # all workers or none
        ("auto", 2, 4, True),
        (True, 2, 0, True),  # the autoscaler adds them
        (False, 1, 8, False),
    ],
)
def test_gpus_are_taken_where_the_cluster_has_enough(use_gpu, workers, gpus, expected):
    resources = {"CPU": 16.0, "GPU": float(gpus)} if gpus else {"CPU": 16.0}
    assert choose_gpus(use_gpu, workers, resources) is expected


def test_a_worker_has_its_cpus_and_one_gpu_if_any():
    on_gpus, on_cpus = build_scaling(3, True), build_scaling(2, False, 2.0)
    assert (on_gpus.num_workers, on_gpus.use_gpu, on_gpus.resources_per_worker) == (3, True, {"CPU": 1.0, "GPU": 1.0})
    assert (on_cpus.num_workers, on_cpus.use_gpu, on_cpus.resources_per_worker) == (2, False, {"CPU": 2.0})
    assert [name_device(gpu) for gpu in (True, False)] == ["cuda", "cpu"]


@pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_the_precision_is_what_the_gpu_has(monkeypatch, has_bfloat16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bfloat16)
    assert device.choose_precision("cuda") is expected
    assert device.choose_precision("cpu") is None


@pytest.mark.parametrize("drawn", [False, True])
def test_the_loss_with_all_logits_has_the_same_value_and_gradients(drawn):
    torch.manual_seed(0)
    log_chance, target = torch.randn(300) if drawn else None, torch.randint(300, (200,))
    found = []
    for loss in (sasrec_training.SoftmaxLoss.apply, sasrec_training.compute_softmax_loss):
        torch.manual_seed(1)
        queries, items = torch.randn(200, 8, requires_grad=True), torch.randn(300, 8, requires_grad=True)
        value = loss(queries, items, log_chance, target)
        value.backward()
        found.append((value.detach(), queries.grad, items.grad))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


@pytest.fixture
def mixed(monkeypatch):
    """A processor that trains in mixed precision, as a GPU does."""
    monkeypatch.setattr(device, "choose_precision", lambda kind: torch.bfloat16)
    monkeypatch.setattr(sasrec_training.SoftmaxLoss, "apply", sasrec_training.compute_softmax_loss)


def train_two_tower(events, content):
    losses, model = [], two_tower_training.build_towers(events.n_items, content, TWO_TOWER)
    rows = two_tower_training.TwoTowerRows(events, TWO_TOWER)
    two_tower_training.train(model, rows, TWO_TOWER, after_epoch=lambda epoch, loss, left: losses.append(loss))
    return model, losses[-1]


def train_sasrec(events, content):
    losses, model = [], sasrec_training.build_transformer(events.n_items, content, SASREC)
    course = sasrec_training.Training(model, sasrec_training.SequenceRows(events, SASREC))
    course.run(lambda epoch: losses.append(epoch.loss))
    again = sasrec_training.Training(sasrec_training.build_transformer(events.n_items, content, SASREC), course.rows)
    again.restore(course.get_state())  # a checkpoint of either precision
    return again.model, losses[-1]


@pytest.mark.parametrize("train", [train_two_tower, train_sasrec])
def test_mixed_precision_trains_weights_of_single_precision_to_about_the_same_loss(train, rng, request):
    events, content = plant_blocks(rng)
    _, plain = train(events, content)
    request.getfixturevalue("mixed")
    model, loss = train(events, content)
    assert loss == pytest.approx(plain, rel=0.02) and loss != plain
    weights = read_weights(model)
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    assert all(np.isfinite(array).all() for array in weights.values())


def test_trees_are_trained_on_the_device_and_used_on_the_processor(monkeypatch):
    assert fitting._build_params(RankingConfig(), 1, "cuda")["device"] == "cuda"
    asked = SimpleNamespace(set_param=lambda params: found.update(params))
    found = {}
    monkeypatch.setattr(fitting, "fit_calibration", lambda *_: None)
    fitting.calibrate_ranker(asked, 0.0, [], ())
    assert found == {"nthread": 1, "device": "cpu"}


def test_a_sentence_model_is_loaded_on_the_device_of_the_training_alone(monkeypatch):
    loaded = []
    fake = SimpleNamespace(SentenceTransformer=lambda model, device: loaded.append(device))
    monkeypatch.setitem(sys.modules, "sentence_transformers", fake)
    with use_device("cuda"):
        SentenceModel("any")
    SentenceModel("any")
    assert loaded == ["cuda", "cpu"]
