"""The batch size of a dump that nobody chose: what fits the memory, and on a GPU what is fast there."""

from __future__ import annotations

import torch

from bancache.dumping.settings import DumpSettings
from bancache.dumping.teacher_input import input_shape
from bancache.errors import UsageError
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.system.batch_memory import Needs, free_bytes
from bancache.system.capturing import can_capture, capture, seconds
from bancache.system.progress import Progress, Silent

# What is tried beside the usual one: small batches leave a large GPU idle.
_SIZES = (512, 1024, 2048)
# The smallest of the batches that are about as fast as the fastest: it takes the least memory.
_ABOUT = 0.97
# Measuring itself takes seconds, so a short dump gains nothing.
_WORTH_SECONDS = 20.0


def choose_batch_size(
    teacher: Teacher,
    data: ImageSet,
    settings: DumpSettings,
    needs: Needs | None,
    device: torch.device,
    progress: Progress,
    *,
    dumps: int = 1,
) -> int:
    """Return the batch size of ``settings``, or less if that does not fit, or on a GPU a larger one that is faster.

    Where torch is to repeat its bits nothing is measured.
    ``needs`` is what a pass takes of the memory, None if that is not known. ``dumps`` caches are made with it. What is
    chosen is said in a note, and is recorded in the manifest.
    """
    if needs is None:
        return settings.batch_size
    fitting = needs.fit(settings.batch_size, len(data), free_bytes(device), progress)
    # Two measurements may choose two sizes, and with them other bits.
    measured = can_capture(device) and not torch.are_deterministic_algorithms_enabled()
    if fitting < settings.batch_size or not measured:
        return fitting
    num_pairs = len(data) * settings.num_views * dumps
    try:
        return _fastest(teacher, data, settings, needs, device, num_pairs, progress)
    except (RuntimeError, UsageError):  # a model that cannot be captured, or not at these sizes
        return fitting


def _fastest(
    teacher: Teacher,
    data: ImageSet,
    settings: DumpSettings,
    needs: Needs,
    device: torch.device,
    num_pairs: int,
    progress: Progress,
) -> int:
    """Return the smallest batch size that is about as fast as any."""
    shape, usual, free = input_shape(teacher, data, settings), settings.batch_size, free_bytes(device)
    rates = {usual: images_a_second(teacher, shape, usual, device)}
    if num_pairs / rates[usual] < _WORTH_SECONDS:
        return usual
    for size in _SIZES:
        # A larger batch than the data or the memory would be made smaller again.
        if size > usual and needs.fit(size, len(data), free, Silent()) == size <= len(data):
            rates[size] = images_a_second(teacher, shape, size, device)
    best = max(rates.values())
    chosen = min(size for size, rate in rates.items() if rate >= _ABOUT * best)
    if chosen != usual:
        progress.note(
            f"batch size {chosen}: the teacher runs {rates[chosen]:,.0f} images/s, and {rates[usual]:,.0f} at "
            f"{usual} (--batch-size)"
        )
    return chosen


def images_a_second(
    teacher: Teacher, shape: tuple[int, int, int], batch_size: int, device: torch.device
) -> float:
    """Return how many images a second a teacher takes in batches of noise, captured."""
    images = torch.randn(batch_size, *shape, device=device)
    images = images.to(dtype=teacher.input_dtype, memory_format=torch.channels_last)

    def ask() -> None:
        teacher.logits(images)

    return batch_size / seconds(capture(ask, device), device)
