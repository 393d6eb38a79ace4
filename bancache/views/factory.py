"""Which renderer serves views and a device, and how much of the device's memory the pictures take."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.system.numba import is_installed
from bancache.system.stored import AnyImages, StoredImages
from bancache.views.lattice import Lattice
from bancache.views.lattice_renderer import LatticeRenderer
from bancache.views.model_input import Normalization
from bancache.views.pictures import Pictures, Shapes, shapes_of
from bancache.views.record_renderer import RecordRenderer
from bancache.views.renderer import Renderer
from bancache.views.several_sizes import SeveralSizes, distinct
from bancache.views.space import Sizes, ViewSpace
from bancache.views.streamed_renderer import StreamedRenderer


def choose_renderer(
    images: AnyImages,
    space: ViewSpace,
    normalization: Normalization,
    *,
    size: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Renderer:
    """Return the fastest renderer for views and a device, with the pictures in the device's memory if they are in memory.

    All renderers of the same views give the same bits. Only Triton's kernels give other dtypes than float32.

    Args:
        images: uint8 (N, H, W, C), or pictures of different sizes, or pictures that are not in memory.
        space: The views.
        normalization: Of the rendered pixels.
        size: Height and width of the rendered views; by default those of the images.
        device: Where batches appear.
        dtype: Of the batches, where a kernel renders them.

    Raises:
        UsageError: The views need images of one size, or nothing says at which size they are shown.
    """
    device, shapes = torch.device(device), shapes_of(images)
    shown = shapes.require(space, size)
    if isinstance(images, StoredImages):
        inner = _record_renderer(_largest(shapes), space, normalization, shown, device, dtype)
        return StreamedRenderer(images, shapes, inner)
    if isinstance(space, Lattice) and isinstance(images, np.ndarray) and shown == shapes.size:
        return _lattice_renderer(images, space, normalization, device, dtype)
    return _record_renderer(Pictures.of(images), space, normalization, shown, device, dtype)


def renderer_of_sizes(
    images: AnyImages,
    space: ViewSpace,
    normalization: Normalization,
    sizes: Sequence[tuple[int, int]],
    *,
    device: torch.device | str = "cpu",
) -> SeveralSizes:
    """Return a renderer that shows each view at several sizes; arguments and errors are those of ``choose_renderer``."""
    device, shapes = torch.device(device), shapes_of(images)
    pictures = _largest(shapes) if isinstance(images, StoredImages) else Pictures.of(images)

    def part(size: tuple[int, int]) -> Renderer:
        shown = shapes.require(space, size)
        inner = _record_renderer(pictures, space, normalization, shown, device, torch.float32)
        return StreamedRenderer(images, shapes, inner) if isinstance(images, StoredImages) else inner

    return SeveralSizes([part(size) for size in distinct(sizes)])


def _record_renderer(
    pictures: Pictures,
    space: ViewSpace,
    normalization: Normalization,
    shown: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
) -> RecordRenderer:
    if _has_kernel(device) and pictures.channels in (1, 3):
        from bancache.views.triton_record_renderer import TritonRecordRenderer

        return TritonRecordRenderer(pictures, space, normalization, size=shown, device=device, dtype=dtype)
    kind: type[RecordRenderer] = RecordRenderer
    if device.type == "cpu" and is_installed():
        # Importing numba takes long, and the views of small images have no use for it.
        from bancache.views.numba_renderer import NumbaRenderer

        kind = NumbaRenderer
    return kind(pictures, space, normalization, size=shown, device=device)


def _largest(shapes: Shapes) -> Pictures:
    """Return one picture as high and as wide as any, without pixels: it stands for pictures that are still to be read."""
    heights, widths = (
        np.array([side.max()], np.int64) for side in (shapes.sizes.heights, shapes.sizes.widths)
    )
    nothing = np.empty(0, np.uint8), np.zeros(1, np.int64)
    return Pictures(Sizes(heights, widths), shapes.channels, shapes.size, shapes.span, *nothing)


def renderer_of_some(
    images: AnyImages,
    samples: NDArray[np.int64],
    space: ViewSpace,
    normalization: Normalization,
    *,
    size: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Renderer, NDArray[np.int64]]:
    """Return a renderer that has at least the pictures of ``samples``, and their numbers in it, int64 (B,).

    Crops are padded copies, so only the pictures that are used are taken. Other views are made from the pictures as they
    are, and a partner may be any of them.
    """
    if isinstance(images, np.ndarray) and isinstance(space, Lattice) and size in (None, images.shape[1:3]):
        used, samples = np.unique(samples, return_inverse=True)
        images = images[used]
    renderer = choose_renderer(images, space, normalization, size=size, device=device)
    return renderer, samples.astype(np.int64)


def resident_bytes(
    images: AnyImages, space: ViewSpace, device: torch.device, size: tuple[int, int] | None = None
) -> int:
    """Return how many bytes of device memory ``choose_renderer`` needs for the pictures.

    Only torch's renderer of crops keeps other pixels than those of the pictures: padded ones and, with flips, also
    their mirror images. Pictures that are not in memory need none. Errors are those of ``choose_renderer``.
    """
    shapes = shapes_of(images)
    height, width = shapes.require(space, size)
    if isinstance(images, StoredImages):
        return 0
    if not isinstance(space, Lattice) or (height, width) != shapes.size or _has_kernel(device):
        return images.nbytes
    padded = (height + 2 * space.pad) * (width + 2 * space.pad) * shapes.channels
    return int((1 + space.flip) * len(shapes) * padded)


def _lattice_renderer(
    images: NDArray[np.uint8],
    space: Lattice,
    normalization: Normalization,
    device: torch.device,
    dtype: torch.dtype,
) -> Renderer:
    if _has_kernel(device):
        # Importing triton takes long, and a CPU has no use for it.
        from bancache.views.triton_renderer import TritonRenderer, unavailable

        if unavailable(device, images.shape[3]) is None:
            return TritonRenderer(images, space, normalization, device=device, dtype=dtype)
    return LatticeRenderer(images, space, normalization, device=device)


def _has_kernel(device: torch.device) -> bool:
    return device.type == "cuda" and find_spec("triton") is not None
