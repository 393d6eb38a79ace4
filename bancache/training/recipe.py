"""Recipe: the hyper-parameters of a run, with published settings as named presets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from bancache.encodings.changes import UNCHANGED, check_change
from bancache.errors import UsageError
from bancache.system import configs

Schedule = Literal["step", "onecycle", "cosine"]
Optimizer = Literal["sgd", "adamw"]
LossName = Literal["ban-l", "ban", "kd", "cwtm", "dkpp"]
LOSSES: tuple[str, ...] = get_args(LossName)


def _check_loss(name: str, *, temperature: float, alpha: float) -> None:
    """Raise UsageError for an unknown loss, or settings that the loss does not have."""
    if name not in LOSSES and own_name(name) is None:
        raise UsageError(
            f"no loss is called '{name}'",
            hint=f"use one of {', '.join(LOSSES)}, or module:function of your own",
        )
    if not 0 < temperature < math.inf or not 0 <= alpha <= 1:
        raise UsageError(
            f"temperature {temperature} and alpha {alpha}",
            hint="use a --temperature above 0 and an --alpha from 0 to 1",
        )
    if name != "kd" and temperature != 1 and own_name(name) is None:
        raise UsageError(
            f"loss '{name}' is defined at temperature 1, not {temperature:g}", hint="use --loss kd"
        )


def own_name(loss: str) -> str | None:
    """Return the name of a loss if it is ``module:function``, code of the user's own, else None."""
    module, _, function = loss.partition(":")
    return loss if module and function.isidentifier() else None


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of a run: one optimizer, one loss, one schedule.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Views per step.
        lr: Peak learning rate.
        schedule: ``step`` (constant, times ``gamma`` at each milestone), ``cosine`` (half a cosine from ``lr`` to 0) or
            ``onecycle`` (linear from ``lr``/25 to ``lr`` in the first 30 % of the steps, then a cosine down to
            ``lr``/10,000; Smith and Topin, 2018).
        weight_decay: L2 penalty on all trainable parameters; with ``adamw`` decoupled from the gradient, as torch does it.
        milestones: For schedule ``step``: fractions of the epochs.
        gamma: For schedule ``step``: factor at each milestone.
        momentum: Nesterov momentum of SGD.
        loss: Name of the students' loss, or ``module:function`` of the user's own. Generation 0 always uses cross-entropy
            with the labels.
        temperature: Temperature T of loss ``kd``, and of the targets that a loss of the user's own gets.
        alpha: Weight of the soft-target term in loss ``kd``.
        amp: Run the forward pass under bfloat16 autocast; the loss is computed in float32.
        compile: Compile the model with torch.compile.
        targets: How the teacher's rows are changed when they are read, such as ``class-mean``; ``none`` leaves them.
        loss_scale: Factor of the students' loss. 0.5 makes loss ``ban-l`` the mean of its two cross-entropies, which has the
            gradient of one.
        optimizer: torch's ``SGD`` with Nesterov momentum, or torch's ``AdamW`` with its own betas.
        warmup: Epochs in which the learning rate rises linearly from ``lr``/100 to ``lr``, before the schedule; 0: none.
        label_smoothing: Share of each label that is spread evenly over all classes, in every cross-entropy with labels but
            that of a loss of the user's own.
        clip_grad: Largest L2 norm of all gradients together; longer ones are shortened to it. 0: never.
        weight_decay_exclude_1d: No weight decay on biases, the parameters of norms and what the model itself excludes.
        ema: Decay per step of an exponential moving average of weights and statistics, which is then what is evaluated
            and written; 0: the last weights themselves.
        keep_last: What remains of an epoch after its last full batch is one smaller batch more; else it is left out, other
            images in each epoch.
        shuffle_block: Consecutive samples that an epoch reads as one run, mixed with those of seven other runs; 0: samples in
            any order.

    Raises:
        UsageError: A value is out of range, the loss is not defined at this temperature, or ``onecycle``, which rises by
            itself, has a warm-up.
    """

    epochs: int
    batch_size: int
    lr: float
    schedule: Schedule
    weight_decay: float
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    momentum: float = 0.9
    loss: LossName | str = "ban-l"
    temperature: float = 1.0
    alpha: float = 0.9
    amp: bool = False
    compile: bool = False
    targets: str = UNCHANGED
    loss_scale: float = 1.0
    optimizer: Optimizer = "sgd"
    warmup: float = 0.0
    label_smoothing: float = 0.0
    clip_grad: float = 0.0
    weight_decay_exclude_1d: bool = False
    ema: float = 0.0
    keep_last: bool = False
    shuffle_block: int = 0

    def __post_init__(self) -> None:
        check_change(self.targets)
        if not 0 < self.loss_scale < math.inf:
            raise UsageError(f"loss scale {self.loss_scale}", hint="give a --loss-scale above 0")
        _check_loss(self.loss, temperature=self.temperature, alpha=self.alpha)
        for name, value in (("epochs", self.epochs), ("batch size", self.batch_size)):
            if value < 1:
                raise UsageError(f"{name} {value} trains nothing", hint="give at least 1")
        if not 0 < self.lr < math.inf or not 0 <= self.weight_decay < math.inf:
            raise UsageError(
                f"learning rate {self.lr}, weight decay {self.weight_decay}: give positive numbers"
            )
        if not 0 <= self.momentum < 1 or not 0 < self.gamma < math.inf:
            raise UsageError(
                f"momentum {self.momentum}, gamma {self.gamma}", hint="momentum is 0 to 1, gamma above 0"
            )
        _check_additions(self)

    def learning_rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, from 0, in a run of ``steps`` steps."""
        # As torch's LinearLR from a hundredth, which is torchvision's; a run of warm-up alone learns, too.
        rising = min(round(self.warmup / self.epochs * steps), steps - 1)
        if step < rising:
            return self.lr * (0.01 + 0.99 * step / rising)
        if self.schedule == "step":
            passed = sum(step >= round(milestone * steps) for milestone in self.milestones)
            return self.lr * self.gamma**passed
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))
        warm = max(1, round(0.3 * steps))
        if step < warm:
            return self.lr * (1 / 25 + (1 - 1 / 25) * step / warm)
        progress = (step - warm) / max(1, steps - 1 - warm)
        floor = 1e-4
        return self.lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

    def learning_rates(self, epoch: int, steps: int) -> list[float]:
        """Return the learning rate of each of the ``steps`` steps of an epoch, from 0."""
        return [self.learning_rate(epoch * steps + n, self.epochs * steps) for n in range(steps)]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; settings that older versions do not know only if they are used."""
        return {key: value for key, value in configs.to_dict(self).items() if _ADDED.get(key) != value}


# What older versions did, which have no such settings.
_ADDED: dict[str, Any] = {
    field.name: field.default
    for field in fields(Recipe)[[field.name for field in fields(Recipe)].index("targets") :]
}


def with_additions(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe as it is on disk, with the settings that it lacks because they were not used."""
    return {**_ADDED, **recipe}


def _check_additions(recipe: Recipe) -> None:
    for name, known in (("schedule", Schedule), ("optimizer", Optimizer)):
        if getattr(recipe, name) not in get_args(known):
            raise UsageError(
                f"no {name} is called '{getattr(recipe, name)}'",
                hint=f"use one of {', '.join(get_args(known))}",
            )
    for name, most in (
        ("warmup", recipe.epochs),
        ("label_smoothing", 1),
        ("clip_grad", math.inf),
        ("ema", 1),
    ):
        if not 0 <= getattr(recipe, name) < most:
            option, most_shown = name.replace("_", "-"), "" if most == math.inf else f", and below {most}"
            raise UsageError(
                f"{option} {getattr(recipe, name):g}", hint=f"give --{option} 0 or more{most_shown}"
            )
    if recipe.shuffle_block < 0:
        raise UsageError(f"shuffle-block {recipe.shuffle_block}", hint="give --shuffle-block 0 or more")
    if recipe.warmup and recipe.schedule == "onecycle":
        raise UsageError(
            f"schedule 'onecycle' rises by itself, and has no warm-up of {recipe.warmup:g} epochs",
            hint="use --schedule cosine, or leave out --warmup",
        )


PRESETS: dict[str, Recipe] = {
    # Zagoruyko and Komodakis, "Wide Residual Networks", 2016; the workshop paper uses it for every model.
    "wrn": Recipe(
        epochs=200,
        batch_size=128,
        lr=0.1,
        schedule="step",
        weight_decay=5e-4,
        milestones=(0.3, 0.6, 0.8),
        gamma=0.2,
    ),
    # Huang et al., "Densely Connected Convolutional Networks", 2017.
    "densenet": Recipe(
        epochs=300,
        batch_size=64,
        lr=0.1,
        schedule="step",
        weight_decay=1e-4,
        milestones=(0.5, 0.75),
        gamma=0.1,
    ),
    # torchvision's reference training of its ResNets on ImageNet: 90 epochs, 32 images on each of 8 GPUs, a tenth of the rate
    # every 30 epochs. Its momentum is not Nesterov's.
    "imagenet": Recipe(
        epochs=90,
        batch_size=256,
        lr=0.1,
        schedule="step",
        weight_decay=1e-4,
        milestones=(1 / 3, 2 / 3),
        gamma=0.1,
    ),
    # Not published: for runs too short for a step schedule.
    "onecycle": Recipe(epochs=30, batch_size=128, lr=0.2, schedule="onecycle", weight_decay=5e-4),
    # Touvron et al., "Training Data-Efficient Image Transformers", 2021, table 9: 300 epochs, learning rate
    # 5e-4 * batch / 512 (theirs: 1,024 images), 5 epochs of warm-up. Its stochastic depth and repeated augmentation are
    # not here; views "deit" are its augmentation.
    "deit": Recipe(
        epochs=300,
        batch_size=512,
        lr=5e-4,
        schedule="cosine",
        weight_decay=0.05,
        optimizer="adamw",
        warmup=5,
        label_smoothing=0.1,
        weight_decay_exclude_1d=True,
    ),
    # Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and Consistent", 2022, with the authors' settings
    # for the longest run on Pets: 512 images, learning rate 0.003, T = 2, the teacher alone, gradients clipped at 1,
    # 1,500 steps of warm-up (15 epochs of 50,000 images). They subtract 1e-5 of a weight times the schedule; torch
    # multiplies by the learning rate, too: 1e-5 / 0.003. 300 epochs are their fewest on ImageNet; patience is the point.
    # Mixup is a matter of views.
    "funmatch": Recipe(
        epochs=300,
        batch_size=512,
        lr=3e-3,
        schedule="cosine",
        weight_decay=1e-5 / 3e-3,
        loss="kd",
        temperature=2.0,
        alpha=1.0,
        optimizer="adamw",
        warmup=15,
        clip_grad=1.0,
        weight_decay_exclude_1d=True,
    ),
}


def preset(name: str, **changes: Any) -> Recipe:
    """Return a preset with some settings changed; a change to None is ignored.

    Raises:
        UsageError: No preset has that name, or a value is out of range.
    """
    if name not in PRESETS:
        raise UsageError(f"no recipe is called '{name}'", hint=f"use one of {', '.join(PRESETS)}")
    return replace(PRESETS[name], **given(changes))


def loss_label(settings: dict[str, Any]) -> str:
    """Return what tables call the loss of a recipe's settings, so that no table takes changed targets for plain ones.

    >>> loss_label({"loss": "ban-l", "targets": "class-mean", "loss_scale": 0.5}), loss_label({"loss": "kd"})
    ('ban-l class-mean x0.5', 'kd')
    """
    scale = f"x{settings['loss_scale']:g}" if "loss_scale" in settings else ""
    return " ".join(part for part in (settings["loss"], settings.get("targets", ""), scale) if part)


def given(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the changes that are not None."""
    return {key: value for key, value in changes.items() if value is not None}
