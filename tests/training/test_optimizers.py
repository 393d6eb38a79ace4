"""Each setting of a recipe does what torch does, and neither a stop nor a captured step changes its bits."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contracts.calling import succeed
from contracts.replaying import pretend_to_capture
from contracts.stopping import StopAfter
from contracts.tiny import CPU, RECIPE, architecture, dump_tiny
from torch.optim import lr_scheduler

from bancache.cache.reader import Cache
from bancache.errors import MismatchError, StoppedError
from bancache.loader import Batch
from bancache.losses import MixedLabels
from bancache.models.checkpoint import load_checkpoint
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system import configs
from bancache.training import Recipe, Run, TrainerOptions, run_for_cache, run_for_labels, train
from bancache.training.build import make_loader, make_model, make_optimizer
from bancache.training.cuda_graph import Eager
from bancache.training.memory import training_needs
from bancache.training.state import TrainState
from bancache.training.step import Step, smoothing
from bancache.views import ViewSpace

ADAMW = replace(RECIPE, epochs=2, optimizer="adamw", schedule="cosine", lr=0.01, weight_decay=0.1)
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "adamw": {},
    "warm-up": {"warmup": 0.5},
    "label smoothing": {"label_smoothing": 0.1},
    "clipping": {"optimizer": "sgd", "lr": 0.1, "clip_grad": 0.5},
    "no decay of vectors": {"weight_decay_exclude_1d": True, "weight_decay": 5.0},
    "average": {"ema": 0.6},
    "smaller last batch": {"batch_size": 40, "keep_last": True},
}
EVERYTHING = replace(
    ADAMW, warmup=1, label_smoothing=0.1, clip_grad=0.5, weight_decay_exclude_1d=True, ema=0.9
)


@pytest.fixture(scope="module")
def cache(
    tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> Cache:
    path = tmp_path_factory.mktemp("cache") / "gen0.zarr"
    return dump_tiny(teacher_path, spec, data, path, num_views=3, encoding="root8")[0].cache


def labels_run(recipe: Recipe, spec: DataSpec, data: ImageSet) -> Run:
    return run_for_labels(architecture(), recipe, 0, spec, data, "crop1-flip")


# What is computed.


def in_float64(model: torch.nn.Module, batches: list[Batch], recipe: Recipe, steps: int) -> Any:
    """Take a step for each batch with torch alone: its optimizer without fusion, its schedules, its clipping."""
    model = copy.deepcopy(model).double()
    mean = copy.deepcopy(model)
    vectors = [p for p in model.parameters() if p.ndim == 1 and recipe.weight_decay_exclude_1d]
    rest = [p for p in model.parameters() if all(p is not vector for vector in vectors)]
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": vectors, "weight_decay": 0.0}]
    if recipe.optimizer == "sgd":
        optimizer: Any = torch.optim.SGD(groups, recipe.lr, 0.9, 0, recipe.weight_decay, nesterov=True)
    else:
        optimizer = torch.optim.AdamW(groups, recipe.lr, weight_decay=recipe.weight_decay)
    rising = round(recipe.warmup * steps / recipe.epochs)
    schedule: Any = lr_scheduler.CosineAnnealingLR(optimizer, steps - rising)
    if rising:
        rise = lr_scheduler.LinearLR(optimizer, 0.01, total_iters=rising)
        schedule = lr_scheduler.SequentialLR(optimizer, [rise, schedule], [rising])
    model.train()
    for batch in batches:
        assert isinstance(batch.labels, torch.Tensor)
        optimizer.zero_grad()
        logits = model(batch.images.double())
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip_grad:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
        optimizer.step()
        schedule.step()
        for one, new in zip(mean.state_dict().values(), model.state_dict().values(), strict=True):
            one.copy_(recipe.ema * one + (1 - recipe.ema) * new if one.is_floating_point() else new)
    return mean.state_dict() if recipe.ema else model.state_dict()


@pytest.mark.parametrize("name", SETTINGS)
def test_three_steps_are_those_of_torch_in_float64(
    tmp_path: Path, spec: DataSpec, data: ImageSet, name: str
) -> None:
    """And without the setting they are others."""
    recipe = replace(ADAMW, **SETTINGS[name])
    run, options = labels_run(recipe, spec, data), TrainerOptions(tmp_path / "a.pt", CPU)
    model, loader = make_model(run, options), make_loader(run, data, options)
    batches = [batch for batch, _ in zip(loader.epoch(0), range(3), strict=False)]
    expected = in_float64(model, batches, recipe, 2 * loader.steps)
    averaged = copy.deepcopy(model) if recipe.ema else None
    state = TrainState(model, make_optimizer(model, recipe), averaged)
    plain = in_float64(model, batches, replace(ADAMW, optimizer=recipe.optimizer, lr=recipe.lr), 12)
    stepper = Eager(loader, Step(run, model, state))
    stepper.begin(0, recipe.learning_rates(0, loader.steps), 0)
    for _ in batches:
        stepper.take()
    for key, value in state.result.state_dict().items():
        torch.testing.assert_close(value.to(expected[key].dtype), expected[key], rtol=1e-4, atol=1e-5)
    if name not in ("sgd", "adamw", "smaller last batch"):
        assert max(float((plain[key] - expected[key]).abs().max()) for key in plain if plain[key].ndim) > 1e-3


def test_labels_that_count_twice_are_labels_at_twice_the_rate_and_half_the_decay(
    tmp_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    """To the last bit, by SGD with momentum, since every factor is a power of two."""
    recipe = replace(ADAMW, optimizer="sgd", schedule="onecycle", lr=0.2, weight_decay=1e-3)
    once = labels_run(recipe, spec, data)
    twice = replace(labels_run(replace(recipe, lr=0.1, weight_decay=2e-3), spec, data), label_weight=2.0)
    ends = []
    for run in (once, twice, replace(twice, label_weight=1.0)):
        options = TrainerOptions(tmp_path / "a.pt", CPU)
        model, loader = make_model(run, options), make_loader(run, data, options)
        state = TrainState(model, make_optimizer(model, run.recipe))
        stepper = Eager(loader, Step(run, model, state))
        stepper.begin(0, run.recipe.learning_rates(0, loader.steps), 0)
        for _ in range(3):
            stepper.take()
        ends.append(torch.cat([values.flatten().double() for values in model.state_dict().values()]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("loss", ["labels", "ban-l", "kd", "cwtm", "ban", "dkpp"])
@pytest.mark.parametrize("mixed", [False, True])
def test_smoothing_spreads_a_share_of_every_label_in_every_loss(
    spec: DataSpec, data: ImageSet, cache: Cache, loss: str, *, mixed: bool
) -> None:
    """Against cross-entropy with smoothed rows, in float64, scaled as the loss; losses without labels stay as they are."""
    more_of = {"temperature": 2.0} if loss == "kd" else {}
    more_of["loss_scale"] = 0.5  # of students
    recipe = replace(ADAMW, label_smoothing=0.2, loss="ban-l" if loss == "labels" else loss, **more_of)  # type: ignore[arg-type]
    run = replace(labels_run(recipe, spec, data), label_weight=2.0)
    if loss != "labels":
        run = run_for_cache(architecture(), recipe, 0, spec, data, cache)
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 3), torch.softmax(torch.randn(5, 3), dim=1)
    own, partner, lam = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([2, 2, 0, 1, 1]), torch.rand(5)
    labels = MixedLabels(own, partner, lam) if mixed else own
    batch = Batch(logits, labels, None if loss == "labels" else targets, own.numpy(), own.numpy())
    lam = lam if mixed else torch.ones(5)
    hard = F.one_hot(own, 3) * lam[:, None] + F.one_hot(partner, 3) * (1 - lam[:, None])
    more = -((0.8 * hard + 0.2 / 3 - hard) * torch.log_softmax(logits.double(), 1)).sum(1)
    confidence = targets.amax(1).double()
    weight: dict[str, Any] = {
        "labels": 2.0,
        "ban-l": 0.5,
        "kd": 0.05,
        "cwtm": confidence / confidence.mean() / 2,
    }
    expected = float((weight.get(loss, 0.0) * more).mean())
    assert float(smoothing(run, logits, batch)) == pytest.approx(expected, abs=1e-6)


def test_training_with_more_copies_of_the_weights_is_known_to_take_more_memory(data: ImageSet) -> None:
    """AdamW has a second moment, and an average is a third copy."""
    views = ViewSpace.parse("crop1-flip")
    sgd, adamw, averaged = (
        training_needs(architecture(), recipe, data, data, views, CPU).fixed
        for recipe in (RECIPE, ADAMW, replace(ADAMW, ema=0.9))
    )
    assert adamw - sgd == averaged - adamw > 4 * 500


# Stops and captured steps.


@pytest.mark.parametrize("recipe", [EVERYTHING, replace(EVERYTHING, optimizer="sgd", amp=True)])
def test_a_run_that_stops_after_every_step_ends_with_the_same_bits(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet, recipe: Recipe
) -> None:
    run = labels_run(recipe, spec, data)
    whole = train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU)).checkpoint
    options = TrainerOptions(tmp_path / "b.pt", CPU)
    for _ in range(2 * 6):
        with pytest.raises(StoppedError):
            train(run, data, held_out, options, interrupt=StopAfter(0))
    ended = train(run, data, held_out, options).checkpoint
    assert (ended.fingerprint, ended.header["history"]) == (whole.fingerprint, whole.header["history"])


def test_a_student_with_every_setting_ends_with_the_same_bits_after_a_stop_at_every_step(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet
) -> None:
    """With mixed views, changed targets, dropout, a smaller last batch and bfloat16 at once."""
    mixed = ViewSpace.parse("crop1-flip-mixup0.8-cutmix1.0", seed=5)
    more: dict[str, Any] = {"num_views": 2, "encoding": "root8", "space": mixed}
    cache = dump_tiny(teacher_path, spec, data, tmp_path / "gen0.zarr", **more)[0].cache
    recipe = replace(EVERYTHING, loss="kd", temperature=2.0, targets="permute-rest", loss_scale=0.5)
    recipe = replace(recipe, amp=True, batch_size=40, keep_last=True)
    run = run_for_cache({**architecture("wrn-10-1"), "dropout": 0.3}, recipe, 4, spec, data, cache)
    whole = train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU), cache=cache).checkpoint
    options = TrainerOptions(tmp_path / "b.pt", CPU)
    for _ in range(2 * 3):
        with pytest.raises(StoppedError):
            train(run, data, held_out, options, cache=cache, interrupt=StopAfter(0))
    ended = train(run, data, held_out, options, cache=cache).checkpoint
    assert (ended.fingerprint, ended.header["history"]) == (whole.fingerprint, whole.header["history"])


@pytest.mark.parametrize("recipe", [EVERYTHING, replace(EVERYTHING, optimizer="sgd", momentum=0.0)])
def test_replays_have_the_bits_of_the_eager_loop(
    tmp_path: Path,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    cache: Cache,
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when replays and the eager loop take turns in one run."""
    run = run_for_cache({**architecture("wrn-10-1"), "dropout": 0.3}, recipe, 4, spec, data, cache)
    eager = TrainerOptions(tmp_path / "a.pt", CPU, graph="off")
    whole = train(run, data, held_out, eager, cache=cache).checkpoint
    replays = pretend_to_capture(monkeypatch)
    replayed = train(run, data, held_out, TrainerOptions(tmp_path / "b.pt", CPU), cache=cache).checkpoint
    assert replays == [12]
    options = TrainerOptions(tmp_path / "c.pt", CPU)
    for graph in ("off", "auto", "off"):
        with pytest.raises(StoppedError):
            train(run, data, held_out, replace(options, graph=graph), cache=cache, interrupt=StopAfter(2))
    mixed = train(run, data, held_out, options, cache=cache).checkpoint
    assert replayed.fingerprint == mixed.fingerprint == whole.fingerprint
    assert replayed.header["history"] == mixed.header["history"] == whole.header["history"]


# What is written.


def test_the_averaged_weights_are_evaluated_and_written(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet
) -> None:
    """With a decay that all but keeps the first weights, and one that all but follows the last ones."""
    accuracies = {}
    for decay in (0.0, 1e-9, 0.9999):
        run = labels_run(replace(RECIPE, ema=decay), spec, data)
        out = tmp_path / f"{decay}.pt"
        checkpoint = train(run, data, held_out, TrainerOptions(out, CPU)).checkpoint
        accuracies[decay] = checkpoint.header["test"]["accuracy"]
        assert succeed("evaluate", out)["members"][0]["accuracy"] == accuracies[decay]
        first = make_model(run, TrainerOptions(out, CPU)).state_dict()["first_layer.weight"]
        moved = float((checkpoint.state["first_layer.weight"] - first).abs().max())
        assert (moved < 1e-3) == (decay == 0.9999)
    assert accuracies[0.0] == accuracies[1e-9] > accuracies[0.9999] + 0.2


def test_settings_that_older_versions_lack_are_written_only_if_they_are_used(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet, teacher_path: Path
) -> None:
    """An older version opens what a run with the old settings writes, and refuses recipes that it cannot follow."""
    old = set(configs.to_dict(RECIPE)) - {
        *("optimizer", "warmup", "label_smoothing", "clip_grad", "weight_decay_exclude_1d", "ema"),
        *("targets", "loss_scale", "keep_last", "shuffle_block"),
    }
    assert set(load_checkpoint(teacher_path).header["recipe"]) == set(RECIPE.to_dict()) == old
    assert set(EVERYTHING.to_dict()) == set(configs.to_dict(EVERYTHING)) - {
        "targets",
        "loss_scale",
        "keep_last",
        "shuffle_block",
    }
    assert configs.from_dict(Recipe, EVERYTHING.to_dict(), what="recipe") == EVERYTHING
    options = TrainerOptions(tmp_path / "a.pt", CPU)
    train(labels_run(EVERYTHING, spec, data), data, held_out, options)
    assert load_checkpoint(options.checkpoint_path).header["recipe"] == EVERYTHING.to_dict()
    for changes in ({"ema": 0.0}, {"optimizer": "sgd"}, {"clip_grad": 1.0}):
        with pytest.raises(MismatchError, match=next(iter(changes)).replace("_", " ")):
            train(labels_run(replace(EVERYTHING, **changes), spec, data), data, held_out, options)
