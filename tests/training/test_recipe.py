"""Schedules agree with numbers computed by hand, and presets with the published settings."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from contracts.lattices import lattice
from torch.optim import lr_scheduler

from bancache.errors import UsageError
from bancache.system import configs
from bancache.training import PRESETS, Recipe
from bancache.training.defaults import (
    default_model,
    default_num_views,
    default_recipe,
    default_share_layers,
    default_views,
    student_recipe,
)
from bancache.training.recipe import preset
from bancache.views import ViewSpace


def test_wide_resnets_schedule_is_the_published_one() -> None:
    """0.1, times 0.2 at epochs 60, 120 and 160 of 200; here with 390 steps an epoch."""
    recipe, steps = PRESETS["wrn"], 200 * 390
    rates = [recipe.learning_rate(epoch * 390, steps) for epoch in (0, 59, 60, 119, 120, 159, 160, 199)]
    assert rates == pytest.approx([0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008])
    assert recipe.learning_rate(60 * 390 - 1, steps) == pytest.approx(0.1)


def test_densenets_schedule_is_the_published_one() -> None:
    """0.1, times 0.1 at half and at three quarters of 300 epochs."""
    recipe, steps = PRESETS["densenet"], 300 * 781
    rates = [recipe.learning_rate(epoch * 781, steps) for epoch in (0, 149, 150, 224, 225, 299)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_milestones_keep_their_place_in_a_shorter_run() -> None:
    """30, 60 and 80 % of 10 steps."""
    rates = [PRESETS["wrn"].learning_rate(step, 10) for step in range(10)]
    assert rates == pytest.approx([0.1] * 3 + [0.02] * 3 + [0.004] * 2 + [0.0008] * 2)


def test_one_cycle_rises_for_three_tenths_and_falls_along_a_cosine() -> None:
    """21 steps at a peak of 1: six up from 1/25, then half a cosine from step 6 to step 20 down to 1/10,000."""
    recipe = replace(PRESETS["onecycle"], lr=1.0)
    rates = [recipe.learning_rate(step, 21) for step in range(21)]
    assert rates[:7] == pytest.approx([0.04, 0.2, 0.36, 0.52, 0.68, 0.84, 1.0])
    assert rates[13] == pytest.approx(1e-4 + (1 - 1e-4) * 0.5)  # halfway down: cos(pi / 2) = 0
    assert rates[20] == pytest.approx(1e-4)
    assert rates[6:] == sorted(rates[6:], reverse=True)
    quarter = 1e-4 + (1 - 1e-4) * 0.5 * (1 + math.cos(math.pi * 3.5 / 14))
    assert (rates[9] + rates[10]) / 2 == pytest.approx(quarter, rel=5e-3)


def test_a_warm_up_of_nearly_all_steps_leaves_the_last_one_the_full_rate() -> None:
    recipe = Recipe(1, 1, lr=0.4, schedule="cosine", weight_decay=0, warmup=0.9)
    assert recipe.learning_rates(0, 2) == [0.4 * 0.01, 0.4]


@pytest.mark.parametrize("warmup", [0, 0.3, 2])
def test_warm_up_and_cosine_are_those_of_torch(warmup: float) -> None:
    """Ten epochs of three steps: torch's LinearLR from a hundredth, then its CosineAnnealingLR down to 0."""
    recipe = Recipe(10, 1, lr=0.4, schedule="cosine", weight_decay=0, warmup=warmup)
    optimizer, rising = torch.optim.SGD([torch.zeros(1)], lr=0.4), round(3 * warmup)
    schedules: list[Any] = [lr_scheduler.CosineAnnealingLR(optimizer, 30 - rising)]
    if rising:
        schedules.insert(0, lr_scheduler.LinearLR(optimizer, 0.01, total_iters=rising))
    whole = lr_scheduler.SequentialLR(optimizer, schedules, [rising] * (len(schedules) - 1))
    for rate in (rate for epoch in range(10) for rate in recipe.learning_rates(epoch, 3)):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        whole.step()


def test_steps_keep_their_place_after_a_warm_up() -> None:
    recipe = replace(PRESETS["wrn"], epochs=10, warmup=2)
    rates = [recipe.learning_rate(step, 10) for step in range(10)]
    assert rates == pytest.approx([0.001, 0.0505, 0.1] + [0.02] * 3 + [0.004] * 2 + [0.0008] * 2)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("name", PRESETS)
def test_every_step_of_every_run_has_a_rate_that_learns(name: str, steps: int) -> None:
    rates = [PRESETS[name].learning_rate(step, steps) for step in range(steps)]
    assert all(0 < rate <= PRESETS[name].lr for rate in rates)


def test_the_presets_are_the_published_settings() -> None:
    """Zagoruyko and Komodakis 2016, Huang et al. 2017, torchvision's reference for ResNets."""
    wrn, densenet = PRESETS["wrn"], PRESETS["densenet"]
    assert (wrn.epochs, wrn.batch_size, wrn.lr, wrn.weight_decay) == (200, 128, 0.1, 5e-4)
    assert (wrn.gamma, wrn.momentum) == (0.2, 0.9)
    assert [milestone * 200 for milestone in wrn.milestones] == pytest.approx([60, 120, 160])
    assert (densenet.epochs, densenet.batch_size, densenet.lr, densenet.weight_decay) == (300, 64, 0.1, 1e-4)
    assert (densenet.gamma, densenet.milestones, densenet.momentum) == (0.1, (0.5, 0.75), 0.9)
    imagenet = PRESETS["imagenet"]
    assert (imagenet.epochs, imagenet.batch_size, imagenet.lr) == (90, 8 * 32, 0.1)
    assert (imagenet.weight_decay, imagenet.momentum) == (1e-4, 0.9)
    # Steps of 1,281,167 images: the rate falls after 30 and after 60 epochs.
    rates = [imagenet.learning_rate(5004 * epoch, 5004 * 90) for epoch in (0, 29, 30, 59, 60, 89)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    for name, recipe in PRESETS.items():
        assert (recipe.loss, recipe.temperature) == (("kd", 2.0) if name == "funmatch" else ("ban-l", 1.0))


def test_adamws_presets_are_the_published_settings() -> None:
    """Touvron et al. 2021 (5e-4 for every 512 images), Beyer et al. 2022 (decay 1e-5, not times the rate)."""
    deit, funmatch = PRESETS["deit"], PRESETS["funmatch"]
    assert deit.lr * 1024 / deit.batch_size == pytest.approx(1e-3)
    assert (deit.weight_decay, deit.label_smoothing, deit.warmup, deit.epochs) == (0.05, 0.1, 5, 300)
    assert (funmatch.batch_size, funmatch.lr, funmatch.clip_grad, funmatch.alpha) == (512, 3e-3, 1.0, 1.0)
    assert funmatch.weight_decay * funmatch.lr == pytest.approx(1e-5)
    assert funmatch.warmup * 50_000 / funmatch.batch_size == pytest.approx(1500, rel=0.03)
    assert {deit.optimizer, funmatch.optimizer, deit.schedule, funmatch.schedule} == {"adamw", "cosine"}


def test_a_preset_changes_where_it_is_asked_to() -> None:
    changed = preset("wrn", epochs=60, lr=None, amp=True)
    assert changed == replace(PRESETS["wrn"], epochs=60, amp=True)
    with pytest.raises(UsageError, match="'wr'") as caught:
        preset("wr")
    assert all(name in caught.value.hint for name in PRESETS)


def test_a_recipe_survives_being_written_down() -> None:
    for recipe in PRESETS.values():
        assert configs.from_dict(Recipe, configs.to_dict(recipe), what="recipe") == recipe


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"epochs": 0}, "epochs 0"),
        ({"batch_size": -1}, "batch size -1"),
        ({"lr": 0.0}, "learning rate 0.0"),
        ({"lr": math.inf}, "learning rate inf"),
        ({"lr": math.nan}, "learning rate nan"),
        ({"weight_decay": -1e-4}, "weight decay -0.0001"),
        ({"weight_decay": math.nan}, "weight decay nan"),
        ({"weight_decay": math.inf}, "weight decay inf"),
        ({"momentum": -0.5}, "momentum -0.5"),
        ({"momentum": 1.0}, "momentum 1.0"),
        ({"gamma": math.nan}, "gamma nan"),
        ({"schedule": "cosines"}, "'cosines'"),
        ({"optimizer": "adam"}, "'adam'"),
        ({"warmup": 200.0}, "warmup 200"),
        ({"label_smoothing": 1.0}, "label-smoothing 1"),
        ({"clip_grad": -1.0}, "clip-grad -1"),
        ({"ema": 1.0}, "ema 1"),
        ({"ema": math.nan}, "ema nan"),
        ({"schedule": "onecycle", "warmup": 3.0}, "'onecycle'.* 3 epochs"),
        ({"loss": "ban-m"}, "'ban-m'"),
        ({"temperature": 4.0}, "'ban-l'.* 1.* 4"),
        ({"loss": "kd", "temperature": 0.0}, "temperature 0.0"),
        ({"loss": "kd", "temperature": math.inf}, "temperature inf"),
        ({"loss": "kd", "alpha": 1.5}, "alpha 1.5"),
    ],
)
def test_settings_that_train_nothing_are_refused(changes: dict[str, object], value: str) -> None:
    with pytest.raises(UsageError, match=value):
        preset("wrn", **changes)


@pytest.mark.parametrize(
    ("kind", "size", "model", "views"),
    [
        ("digits", (8, 8), "convnet-16", "crop1"),
        ("npz", (10, 10), "convnet-16", "crop1-flip"),
        ("fashion-mnist", (28, 28), "wrn-28-2", "crop3-flip"),
        ("cifar10", (32, 32), "wrn-28-2", "crop4-flip"),
        ("cifar100", (32, 32), "wrn-28-2", "crop4-flip"),
        ("parquet", (32, 32), "wrn-28-2", "crop4-flip"),
        ("folder", (64, 96), "wrn-28-2", "crop8-flip"),
        ("folder", (224, 224), "torchvision:resnet18", "rrc-flip"),
    ],
)
def test_each_source_has_a_default_model_and_views_that_fit_its_images(
    kind: str, size: tuple[int, int], model: str, views: str
) -> None:
    assert default_model(kind, *size) == model
    assert default_views(kind, *size) == views
    assert not views.startswith("crop") or lattice(views).pad < min(size)


def test_short_runs_take_one_cycle_and_long_ones_steps() -> None:
    assert default_recipe("cifar100", None) == PRESETS["onecycle"]
    assert default_recipe("cifar100", None, epochs=59) == replace(PRESETS["onecycle"], epochs=59)
    assert default_recipe("cifar100", None, epochs=60) == replace(PRESETS["wrn"], epochs=60)
    assert default_recipe("cifar100", "densenet") == PRESETS["densenet"]
    assert default_recipe("digits", None) == replace(PRESETS["onecycle"], epochs=15, batch_size=64)
    assert default_recipe("digits", None, epochs=3, lr=None).epochs == 3
    assert default_recipe("digits", "wrn") == PRESETS["wrn"]


def test_a_student_is_trained_like_its_teacher_unless_asked_otherwise() -> None:
    taught = replace(PRESETS["densenet"], epochs=40, lr=0.05)
    stored = configs.to_dict(taught)
    assert student_recipe("npz", None, stored) == taught
    assert student_recipe("npz", None, stored, loss="ban", lr=None) == replace(taught, loss="ban")
    assert student_recipe("npz", "wrn", stored) == PRESETS["wrn"]
    assert student_recipe("npz", None, None) == PRESETS["onecycle"]
    with pytest.raises(UsageError, match="'epoch'") as caught:
        student_recipe("npz", None, {**stored, "epoch": 3})
    assert "'epochs'" in caught.value.hint


def test_a_cache_has_a_view_for_each_epoch_and_never_more_than_there_are() -> None:
    space = ViewSpace.parse("crop4-flip")
    assert default_num_views(space, {"epochs": 30}) == 30
    assert default_num_views(space, {"epochs": 200}) == 162
    assert default_num_views(space, None) == 16
    assert default_num_views(ViewSpace.parse("flip"), None) == 2


def test_match_models_freeze_the_layers_of_the_teacher_whose_frame_they_have() -> None:
    assert default_share_layers("match-wrn-1-1", "densenet-bc-90-60") == "freeze"
    assert default_share_layers("Match-Wide-ResNet-1-1", "densenet-bc-90-60") == "freeze"
    assert default_share_layers("match-densenet-2-1-2@densenet-bc-40-12", "densenet-bc-40-12") == "freeze"
    assert default_share_layers("match-wrn-1-1", "densenet-bc-40-12") == "none"
    assert default_share_layers("densenet-bc-90-60", "densenet-bc-90-60") == "none"
    assert default_share_layers(None, "match-wrn-1-1") == "none"


def test_blocks_that_are_shuffled_belong_to_a_run_and_without_them_nothing_changes() -> None:
    plain, blocks = preset("wrn"), preset("wrn", shuffle_block=64)
    assert "shuffle_block" not in plain.to_dict()
    assert blocks.to_dict() == {**plain.to_dict(), "shuffle_block": 64}
    with pytest.raises(UsageError) as caught:
        preset("wrn", shuffle_block=-1)
    assert "--shuffle-block" in caught.value.hint
