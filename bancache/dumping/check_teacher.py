"""Look at a third-party teacher before it is believed.

A checkpoint of bancache records its normalization, and its models return logits and have no randomness in eval mode.
Nothing of this is known of other models.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.dumping.forward import pair_logits
from bancache.dumping.settings import DumpSettings
from bancache.errors import UsageError
from bancache.models.answers import sum_to_one
from bancache.models.teacher import Teacher
from bancache.philox import permutation
from bancache.sources.image_set import ImageSet
from bancache.system.progress import Progress
from bancache.views.factory import renderer_of_some
from bancache.views.model_input import Normalization

_DOMAIN = 0x5AFE_0006
_IMAGES = 64
# Kernels may sum in another order from one call or batch to the next; dropout and batch statistics change far more.
_ROUNDING = 1e-2
# A gain of accuracy on so few images that chance does not explain: four standard errors at 50 %.
_GAIN = 0.25
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def check_teacher(
    teacher: Teacher, data: ImageSet, settings: DumpSettings, *, device: torch.device, progress: Progress
) -> None:
    """Run a third-party teacher a few times on some images, and refuse or warn of what would spoil a cache.

    Raises:
        UsageError: The outputs are probabilities, or two passes over the same batch differ.
    """
    sizes = teacher.sizes or [settings.size] * len(teacher.members)
    for member, own_size in zip(teacher.members, sizes, strict=True):
        assert member.input is not None  # `ensemble` requires it
        own = replace(settings, normalization=member.input.normalization, size=own_size)
        check_teacher(member, data, own, device=device, progress=progress)
    if teacher.header or teacher.members:
        return
    # An exported model may take one batch size only.
    size = min(settings.batch_size, len(data), len(data) if teacher.path.endswith(".pt2") else _IMAGES)
    samples = permutation(settings.space.seed, 0, len(data), domain=_DOMAIN)[:size]
    view_ids, every = settings.space.view_ids(samples, 0), np.arange(size)

    def run(
        normalization: Normalization, rows: NDArray[np.int64], seen: tuple[int, int] | None = settings.size
    ) -> torch.Tensor:
        renderer, inside = renderer_of_some(
            data.images, samples, settings.space, normalization, size=seen, device=device
        )
        return pair_logits(teacher, renderer, inside[rows], view_ids[rows], size)

    logits = run(settings.normalization, every)
    if teacher.outputs is None:
        _refuse_probabilities(teacher, logits)
    if (changed := _difference(logits, run(settings.normalization, every))) > _ROUNDING:
        raise UsageError(
            f"teacher '{teacher.path}' gives other logits for the same images, up to {changed:.2g} apart",
            hint="its forward pass must not be random in eval mode: look for dropout that is always on",
        )
    half = -(-size // 2)
    others = run(settings.normalization, np.where(every < half, every, 0))  # copies of the first image
    holds = f"the cache will hold its outputs for batches of {settings.batch_size}"
    if found := teacher.of_batches:
        progress.warn(
            f"{found[0]} in teacher '{teacher.path}' normalizes by the statistics of each batch, as in training: {holds}"
        )
    elif (changed := _difference(logits[:half], others[:half])) > _ROUNDING:
        progress.warn(
            f"teacher '{teacher.path}' gives other logits for an image, up to {changed:.2g} apart, if other images "
            f"are in its batch: {holds}"
        )
    seen_otherwise = _seen_otherwise(data, settings, lambda n, seen: run(n, every, seen))
    _compare_inputs(data.labels[samples], seen_otherwise, logits, progress)


def _refuse_probabilities(teacher: Teacher, logits: torch.Tensor) -> None:
    if not ((logits >= 0) & (logits <= 1)).all():
        return
    kind = "sum to 1" if sum_to_one(logits) else "are between 0 and 1"
    raise UsageError(
        f"the outputs of teacher '{teacher.path}' {kind}: they are probabilities, not logits",
        hint="add --outputs probabilities to take their logarithms, or --outputs logits if they are logits",
    )


def _difference(logits: torch.Tensor, others: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest logit; NaN counts as no difference here."""
    scale = max(1.0, float(logits.abs().nan_to_num().max()))
    return float((logits - others).abs().nan_to_num().max()) / scale


def _usual(data: ImageSet) -> list[Normalization]:
    """Return the normalizations in common use: the data's own, ImageNet's, to -1..1, and none."""
    channels, statistics = data.channels, data.statistics
    pairs = (_IMAGENET, ((0.5,), (0.5,)), ((0.0,), (1.0,)))
    return [
        Normalization(statistics.mean, statistics.std),
        *(Normalization.of_fractions(mean, std, channels) for mean, std in pairs),
    ]


def _seen_otherwise(
    data: ImageSet,
    settings: DumpSettings,
    run: Callable[[Normalization, tuple[int, int] | None], torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Return the logits for images as a teacher may have been trained on them, by the options that show them so.

    Those are normalized otherwise and, where they are enlarged, as large as they are.
    """
    usual = {_text(each): each for each in _usual(data)}
    found = {text: run(each, settings.size) for text, each in usual.items()}
    side = min(data.height, data.width) if data.uniform else None
    if side is None or settings.size is None or side >= min(settings.size):
        return found
    option, own = f"--teacher-size {side}", (side, side)
    with suppress(UsageError):  # many a transformer takes images of one size only
        found[option] = run(settings.normalization, own)
        found |= {f"{text} {option}": run(each, own) for text, each in usual.items()}
    return found


def _compare_inputs(
    classes: NDArray[np.int64], others: dict[str, torch.Tensor], logits: torch.Tensor, progress: Progress
) -> None:
    """Warn if another normalization in common use, or another size, makes the teacher right much more often."""
    labels = torch.tensor(classes)

    def accuracy(of: torch.Tensor) -> float:
        return float((of.argmax(dim=1) == labels).double().mean())

    best = max(others, key=lambda name: accuracy(others[name]))
    if accuracy(others[best]) > accuracy(logits) + _GAIN:
        progress.warn(
            f"the teacher is right on {accuracy(logits):.0%} of {len(labels)} images, and on "
            f"{accuracy(others[best]):.0%} with {best}"
        )


def _text(normalization: Normalization) -> str:
    mean, std = (
        ",".join(f"{value / 255:.3g}" for value in values)
        for values in (normalization.mean, normalization.std)
    )
    return f"--mean {mean} --std {std}"
