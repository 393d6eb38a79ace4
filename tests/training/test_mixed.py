"""Training on mixed views: a step's loss is that of the definition, with the labels of both pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contracts.tiny import CPU, RECIPE, architecture, dump_tiny

from bancache.cache.reader import Cache, open_cache
from bancache.loader import Batch, Loader
from bancache.losses import MixedLabels
from bancache.models.teacher import load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system import capturing
from bancache.system.capturing import WARM_UPS, Replay
from bancache.training import Run, TrainerOptions, run_for_cache, run_for_labels, train
from bancache.training import cuda_graph as graph
from bancache.training.build import make_loader, make_model, make_optimizer
from bancache.training.state import TrainState
from bancache.training.step import Step
from bancache.views import ViewSpace

VIEWS = "crop1-flip-mixup0.8"
LOSSES = ["ban", "ban-l", "kd", "cwtm"]


@pytest.fixture(scope="module")
def cache(
    tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> Cache:
    """Two views of each image, each mixed with its partner's."""
    path = tmp_path_factory.mktemp("cache") / "gen0.zarr"
    dump_tiny(teacher_path, spec, data, path, num_views=2, space=ViewSpace.parse(VIEWS, seed=5))
    return open_cache(path)


def stepped(run: Run, loader: Loader) -> tuple[Batch, torch.Tensor, TrainState]:
    """Take the first step of epoch 1; return its batch, its logits in double precision, and the state after it."""
    model = make_model(run, TrainerOptions("unused.pt", CPU))
    state = TrainState(model, make_optimizer(model, run.recipe))
    batch = next(loader.epoch(1))
    with torch.no_grad():
        logits = make_model(run, TrainerOptions("unused.pt", CPU)).train()(batch.images).double()
    model.train()
    Step(run, model, state)(batch)
    return batch, logits, state


def label_terms(logits: torch.Tensor, labels: MixedLabels) -> torch.Tensor:
    """λ · CE(own) + (1 − λ) · CE(partner) of each row, float64 (B,)."""
    log_p, rows, lam = torch.log_softmax(logits, 1), torch.arange(len(logits)), labels.lam.double()
    return -lam * log_p[rows, labels.own] - (1 - lam) * log_p[rows, labels.partner]


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_a_step_on_labels_alone_weighs_both_labels(spec: DataSpec, data: ImageSet, weight: float) -> None:
    run = run_for_labels(architecture(), RECIPE, 0, spec, data, VIEWS, label_weight=weight)
    batch, logits, state = stepped(run, make_loader(run, data, TrainerOptions("unused.pt", CPU)))
    assert isinstance(batch.labels, MixedLabels)
    assert 0 < batch.labels.lam.mean() < 1
    expected = weight * label_terms(logits, batch.labels).mean()
    assert state.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    known = [
        own if lam >= 0.5 else partner for own, partner, lam in zip(*map(list, batch.labels), strict=True)
    ]
    assert state.correct == sum(int(row.argmax()) == int(y) for row, y in zip(logits, known, strict=True))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_from_a_cache_has_the_loss_of_the_definition(
    spec: DataSpec, data: ImageSet, cache: Cache, loss: str
) -> None:
    """The teacher's term is about the mixed picture itself; its confidence in that picture weighs both labels."""
    recipe = replace(RECIPE, loss=loss)
    run = run_for_cache(architecture(), recipe, 0, spec, data, cache)
    batch, logits, state = stepped(run, make_loader(run, data, TrainerOptions("unused.pt", CPU), cache=cache))
    assert isinstance(batch.labels, MixedLabels)
    assert batch.targets is not None
    t, hard = batch.targets.double(), label_terms(logits, batch.labels)
    soft = -(t * torch.log_softmax(logits, 1)).sum(1)
    expected = {
        "ban": soft,
        "ban-l": hard + soft,
        "kd": (1 - recipe.alpha) * hard + recipe.alpha * (soft + torch.special.xlogy(t, t).sum(1)),
        "cwtm": hard * t.amax(1) / t.amax(1).mean(),
    }[loss]
    assert state.loss.item() == pytest.approx(expected.mean().item(), rel=1e-6)


def test_the_targets_are_the_teachers_for_the_mixed_picture(
    teacher_path: Path, spec: DataSpec, data: ImageSet, cache: Cache
) -> None:
    run = run_for_cache(architecture(), RECIPE, 0, spec, data, cache)
    loader = make_loader(run, data, TrainerOptions("unused.pt", CPU), cache=cache)
    teacher = load_teacher(str(teacher_path), device=CPU)
    for batch in loader.epoch(1):
        assert batch.targets is not None
        expected = torch.softmax(teacher.logits(batch.images), dim=1)
        assert float((batch.targets - expected).abs().max()) < 0.01  # what root4 loses


@pytest.mark.parametrize("taught", [True, False])
def test_replays_of_mixed_steps_end_with_the_bits_of_the_eager_loop(
    tmp_path: Path,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    taught: bool,
) -> None:
    """Labels and shares come from the records on the device, with fewer steps an epoch than a capture warms up with."""

    def call_again(body: Replay, device: torch.device) -> Replay:
        for _ in range(WARM_UPS + 1):
            body()
        return body

    monkeypatch.setattr(graph, "capture", call_again)
    recipe = replace(RECIPE, batch_size=96, epochs=3, loss="ban-l")
    run = (
        run_for_cache(architecture(), recipe, 0, spec, data, cache)
        if taught
        else run_for_labels(architecture(), recipe, 0, spec, data, VIEWS)
    )
    found = []
    for devices in (("cuda",), ("cuda", "cpu")):
        monkeypatch.setattr(capturing, "DEVICE_TYPES", devices)
        options = TrainerOptions(tmp_path / f"{len(devices)}.pt", CPU)
        checkpoint = train(run, data, held_out, options, cache=cache if taught else None).checkpoint
        found.append((checkpoint.fingerprint, checkpoint.header["history"]))
    assert found[0] == found[1]
