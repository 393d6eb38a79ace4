"""What a teacher is given: views of one size, or the same views at each size that members of an ensemble see."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.dumping.settings import DumpSettings
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.system.stored import AnyImages
from bancache.views.factory import choose_renderer, renderer_of_sizes, renderer_of_some, resident_bytes
from bancache.views.renderer import Renderer
from bancache.views.several_sizes import distinct, stacked_shape


def input_renderer(
    teacher: Teacher, images: AnyImages, settings: DumpSettings, device: torch.device
) -> Renderer:
    """Return the renderer of a teacher's inputs."""
    views = settings.space, settings.normalization
    if teacher.sizes:
        return renderer_of_sizes(images, *views, teacher.sizes, device=device)
    return choose_renderer(images, *views, size=settings.size, device=device)


def input_renderer_of_some(
    teacher: Teacher,
    images: AnyImages,
    samples: NDArray[np.int64],
    settings: DumpSettings,
    device: torch.device,
) -> tuple[Renderer, NDArray[np.int64]]:
    """Return a renderer that has at least the pictures of ``samples``, and their numbers in it, int64 (B,)."""
    if teacher.sizes:
        return input_renderer(teacher, images, settings, device), samples
    views = settings.space, settings.normalization
    return renderer_of_some(images, samples, *views, size=settings.size, device=device)


def input_shape(teacher: Teacher, data: ImageSet, settings: DumpSettings) -> tuple[int, int, int]:
    """Return channels, height and width of the tensor that a teacher is given."""
    return stacked_shape(data.channels, teacher.sizes or [settings.size or (data.height, data.width)])


def pictures_bytes(teacher: Teacher, data: ImageSet, settings: DumpSettings, device: torch.device) -> int:
    """Return the bytes of device memory that ``input_renderer`` needs for the pictures."""
    sizes = distinct(teacher.sizes) if teacher.sizes else [settings.size]
    return sum(resident_bytes(data.images, settings.space, device, size) for size in sizes)
