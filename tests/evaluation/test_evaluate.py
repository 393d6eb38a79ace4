"""Accuracy, likelihood and calibration against numbers worked out by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.crossing import as_if_on_a_gpu
from contracts.tiny import CPU, RECIPE, architecture
from torch import nn

from bancache.errors import MismatchError, NonFiniteError, UsageError
from bancache.evaluation import checkpoints, evaluate
from bancache.evaluation import predict as predicting
from bancache.evaluation.members import Member, MemberPredictions
from bancache.evaluation.predict import Evaluator, ensemble, score
from bancache.models import build_model
from bancache.models.checkpoint import load_checkpoint, save_checkpoint
from bancache.models.teacher import arguments_of, build_from, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import TrainerOptions, run_for_labels, train
from bancache.views import Lattice, ViewSpace
from bancache.views.center import Center
from bancache.views.factory import choose_renderer
from bancache.views.model_input import Normalization
from bancache.views.renderer import Renderer

# Five predictions with two classes: right at 0.9, right at 0.9, wrong at 0.9, right at 0.6, wrong at 0.55.
PROBABILITIES = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.6, 0.4], [0.45, 0.55]])
LABELS = np.array([0, 1, 1, 0, 0])


def test_accuracy_and_error_are_fractions_of_one() -> None:
    found = score(PROBABILITIES, LABELS)
    assert (found.accuracy, found.error, found.samples) == (0.6, 0.4, 5)


def test_chance_is_the_share_of_the_most_frequent_label() -> None:
    assert score(PROBABILITIES, LABELS).chance == 0.6


def test_nll_is_the_mean_of_minus_the_log_of_the_labels_probability() -> None:
    by_hand = -(math.log(0.9) + math.log(0.9) + math.log(0.1) + math.log(0.6) + math.log(0.45)) / 5
    assert by_hand == pytest.approx(0.76452, abs=1e-5)
    assert score(PROBABILITIES, LABELS).nll == pytest.approx(by_hand, rel=1e-12)


def test_two_models_are_compared_by_hand(held_out: ImageSet) -> None:
    """The share of equal classes, and KL(other ‖ own)."""
    own, other = np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([[0.5, 0.5], [0.2, 0.8]])
    member, theirs = Member("BAN-1", "a", Path("a.pt")), Member("BAN-2", "b", Path("b.pt"))
    known = MemberPredictions(held_out, CPU, False, {"a": own, "b": other})
    kl = (
        0.5 * math.log(0.5 / 0.9)
        + 0.5 * math.log(0.5 / 0.1)
        + 0.2 * math.log(0.2 / 0.4)
        + 0.8 * math.log(0.8 / 0.6)
    )
    [found] = known.agreements(member, [theirs])
    assert (found["net"], found["weights"], found["share"]) == ("BAN-2", "b", 1.0)
    assert found["kl"] == pytest.approx(kl / 2, rel=1e-12)


def test_a_label_of_probability_zero_has_a_large_but_finite_nll() -> None:
    found = score(np.array([[1.0, 0.0]]), np.array([1]))
    assert found.nll == pytest.approx(708.396, abs=1e-3)
    assert (found.accuracy, found.ece) == (0.0, 1.0)


def test_ece_weighs_each_bins_gap_by_its_share() -> None:
    """0.9 lies in bin 14 of 15 (2/3 of three are right), 0.6 is the upper edge of bin 9, 0.55 lies in bin 9 too."""
    found = score(PROBABILITIES, LABELS)
    by_hand = 3 / 5 * abs(0.9 - 2 / 3) + 2 / 5 * abs(0.575 - 1 / 2)
    assert by_hand == pytest.approx(0.17)
    assert found.ece == pytest.approx(by_hand, rel=1e-12)
    filled = {index: one for index, one in enumerate(found.bins) if one["count"]}
    assert set(filled) == {8, 13}
    assert filled[13]["count"] == 3
    assert filled[13]["confidence"] == pytest.approx(0.9)
    assert filled[13]["accuracy"] == pytest.approx(2 / 3)
    assert filled[8] == {
        "low": pytest.approx(8 / 15),
        "high": pytest.approx(9 / 15),
        "count": 2,
        "confidence": pytest.approx(0.575),
        "accuracy": 0.5,
    }


def test_the_bins_cover_everything_from_0_to_1_and_a_bin_holds_its_upper_edge() -> None:
    bins = score(np.array([[1.0, 0.0], [0.8, 0.2]]), np.array([0, 0])).bins
    assert len(bins) == 15
    assert (bins[0]["low"], bins[14]["high"]) == (0.0, 1.0)
    assert all(one["high"] == other["low"] for one, other in itertools.pairwise(bins))
    assert [index for index, one in enumerate(bins) if one["count"]] == [11, 14]


def test_perfect_calibration_costs_nothing() -> None:
    """Four predictions at 0.75, of which three are right."""
    found = score(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    assert found.ece == pytest.approx(0, abs=1e-15)


def test_an_ensemble_is_the_mean_of_probabilities_and_not_of_logits() -> None:
    """Eq. 4. One member is sure of class 0, two lean to class 1: by logits class 0 would win."""
    logits = np.array([[[8.0, 0.0]], [[0.0, 2.0]], [[0.0, 2.0]]])
    members = [np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in logits]
    together = ensemble(members)
    by_hand = (1 / (1 + math.exp(-8)) + 2 / (1 + math.exp(2))) / 3
    assert together[0, 0] == pytest.approx(by_hand)
    assert together[0].sum() == pytest.approx(1)
    assert together[0].argmax() == 1
    assert logits.mean(axis=0)[0].argmax() == 0


def test_predictions_are_of_each_image_without_augmentation(teacher_path: Path, held_out: ImageSet) -> None:
    """Normalized as in training; the batch size does not matter, and the model's mode stays."""
    checkpoint = load_checkpoint(teacher_path)
    normalization = Normalization.from_dict(checkpoint.header["normalisation"])
    model = build_from(checkpoint)
    model.train()
    found = Evaluator(held_out, normalization, device=CPU, batch_size=7).predict(model)
    assert model.training
    model.eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (normalization.mean, normalization.std))
    pixels = torch.tensor(held_out.images).permute(0, 3, 1, 2).double()
    with torch.no_grad():
        expected = torch.softmax(model(((pixels - mean) / std).float()).double(), dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    at_once = Evaluator(held_out, normalization, device=CPU)
    np.testing.assert_allclose(found, at_once.predict(model), atol=1e-6)
    assert not model.training
    assert score(found, held_out.labels).accuracy == checkpoint.header["test"]["accuracy"]


@pytest.mark.parametrize(("views", "size"), [("crop1-flip", (10, 10)), ("rrc-flip", (8, 8))])
def test_one_evaluator_gives_every_model_the_bits_of_its_own_batches(
    held_out: ImageSet, teacher_path: Path, views: str, size: tuple[int, int]
) -> None:
    """Its renderer is made once and each image of the test split takes its place in memory once."""
    checkpoint, space = load_checkpoint(teacher_path), ViewSpace.parse(views, seed=0).evaluation
    normal = Normalization.from_dict(checkpoint.header["normalisation"])
    renderer = choose_renderer(held_out.images, space, normal, size=size)
    evaluator = Evaluator(held_out, normal, device=CPU, views=space, size=size, batch_size=7)
    for scale in (1.0, 0.5):
        model = build_from(checkpoint).eval()
        model.get_parameter("last_layer.weight").data.mul_(scale)
        found, expected = evaluator.predict(model), []
        for samples in np.split(np.arange(40), range(7, 40, 7)):
            images = renderer.render(*renderer.to_device(samples, space.view_ids(samples, 0)))
            with torch.no_grad():
                expected.append(torch.softmax(model(images).double(), dim=1).numpy())
        assert found.tobytes() == np.concatenate(expected).tobytes()


def test_on_a_gpu_probabilities_come_back_once_and_nothing_goes_there_meanwhile(
    monkeypatch: pytest.MonkeyPatch, held_out: ImageSet
) -> None:
    gpu, normal = torch.device("cuda"), Normalization((0.0,) * 3, (1.0,) * 3)
    with as_if_on_a_gpu(monkeypatch) as operations:
        with gpu:
            model = build_model(**arguments_of(architecture()))
        evaluator = Evaluator(held_out, normal, device=gpu, batch_size=7)
        operations.crossing.clear()
        with pytest.raises(RuntimeError, match="numpy"):  # a tensor without values
            evaluator.predict(model)
    assert operations.crossing == ["aten._to_copy.default"]


def test_a_training_renders_its_test_split_by_one_renderer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: DataSpec, data: ImageSet, held_out: ImageSet
) -> None:
    made: list[object] = []

    def counted(*args: Any, **kwargs: Any) -> Renderer:
        made.append(args[0])
        return choose_renderer(*args, **kwargs)

    monkeypatch.setattr(predicting, "choose_renderer", counted)
    run = run_for_labels(architecture(), RECIPE, 0, spec, data, "crop1-flip")
    history = train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU)).checkpoint.header["history"]
    assert ["test_accuracy" in epoch for epoch in history] == [True] * 4
    assert len(made) == 1


def test_logits_that_are_nan_are_refused(held_out: ImageSet) -> None:
    class Nan(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 3), float("nan"))

    evaluator = Evaluator(held_out, Normalization((0.0,) * 3, (1.0,) * 3), device=CPU)
    with pytest.raises(NonFiniteError):
        evaluator.predict(Nan())


def test_one_checkpoint_is_scored_on_the_test_split_of_its_data(teacher_path: Path) -> None:
    found = evaluate(str(teacher_path), device="cpu")
    expected = load_checkpoint(teacher_path).header["test"]
    assert (found.accuracy, found.nll, found.samples) == (expected["accuracy"], expected["nll"], 40)
    assert [one.error for one in found.members] == [found.error]


def test_several_checkpoints_are_scored_alone_and_together(
    tmp_path: Path, teacher_path: Path, held_out: ImageSet
) -> None:
    first = load_checkpoint(teacher_path)
    flat = {name: torch.zeros_like(value) for name, value in first.state.items()}
    save_checkpoint(tmp_path / "flat.pt", flat, first.header)
    found = evaluate([teacher_path, tmp_path / "flat.pt"], device=CPU)
    assert found.members[0].nll == evaluate(teacher_path, device=CPU).nll
    assert found.members[1].nll == pytest.approx(math.log(3))
    normalization = Normalization.from_dict(first.header["normalisation"])
    alone = Evaluator(held_out, normalization, device=CPU).predict(build_from(first))
    assert found.nll == pytest.approx(score((alone + 1 / 3) / 2, held_out.labels).nll)


def test_other_data_can_be_given_and_must_have_the_same_classes(
    tmp_path: Path, teacher_path: Path, held_out: ImageSet
) -> None:
    def write(name: str, *classes: str) -> None:
        pixels, labels = held_out.images, held_out.labels
        parts = {"train_images": pixels, "train_labels": labels, "classes": np.array(classes)}
        np.savez(tmp_path / name, test_images=pixels[:9], test_labels=labels[:9], **parts)  # type: ignore[arg-type]

    write("same.npz", *held_out.classes)
    write("other.npz", "a", "b", "c")
    for same in (f"npz:{tmp_path / 'same.npz'}", DataSpec(f"npz:{tmp_path / 'same.npz'}")):
        assert evaluate(teacher_path, data=same, device="cpu").samples == 9
    with pytest.raises(MismatchError, match=r"gen0\.pt.*stripes.*'a'"):
        evaluate(teacher_path, data=f"npz:{tmp_path / 'other.npz'}", device="cpu")
    with pytest.raises(UsageError):
        evaluate([])


def test_weights_are_for_one_model_that_has_none(teacher_path: Path) -> None:
    with pytest.raises(UsageError, match=r"w\.pth .* 0"):
        evaluate(teacher_path, weights="w.pth", device="cpu")
    with pytest.raises(UsageError, match=r"w\.pth .* 2"):
        evaluate(["timm:resnet18", teacher_path, "torchvision:resnet18"], weights="w.pth", device="cpu")


def test_a_model_is_evaluated_in_the_precision_that_it_was_trained_in(
    teacher_path: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(teacher_path)
    half = {**checkpoint.header, "recipe": {**checkpoint.header["recipe"], "amp": True}}
    save_checkpoint(tmp_path / "half.pt", checkpoint.state, half)
    whole, rounded = (evaluate(path, device="cpu").nll for path in (teacher_path, tmp_path / "half.pt"))
    assert whole != rounded
    assert whole == pytest.approx(rounded, rel=0.05)


@pytest.mark.parametrize(("width", "kind"), [(None, Lattice), (6, Center)])
def test_a_foreign_model_sees_the_whole_image_or_its_center_if_the_shape_is_another(
    teacher_path: Path, held_out: ImageSet, monkeypatch: pytest.MonkeyPatch, width: int | None, kind: type
) -> None:
    shown: list[Any] = []

    class Spy(Evaluator):
        def __init__(self, *given: Any, **more: Any) -> None:
            shown.append(more["views"])
            super().__init__(*given, **more)

    monkeypatch.setattr(checkpoints, "Evaluator", Spy)
    foreign = replace(load_teacher(str(teacher_path), device=CPU), header={})
    assert isinstance(held_out.images, np.ndarray)
    test, side = replace(held_out, images=held_out.images[:, :, :width]), held_out.height
    checkpoints.predict_with_teacher(foreign, test, (side, side), device=CPU)
    assert [type(each) for each in shown] == [kind]


def test_the_data_is_that_of_the_first_checkpoint_after_foreign_models(
    teacher_path: Path, spec: DataSpec
) -> None:
    found = checkpoints._spec("timm:resnet18", [None, load_checkpoint(teacher_path)], None)
    assert found == spec.resolved()
