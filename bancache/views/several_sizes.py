"""Views of the same addresses at several sizes in one tensor, for an ensemble whose models see other sizes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import torch
from numpy.typing import NDArray

from bancache.views.renderer import Integers, Renderer

Size = tuple[int, int]


def distinct(sizes: Sequence[Size]) -> list[Size]:
    """Return different sizes (height, width), the largest area last."""
    return sorted(set(sizes), key=lambda size: (size[0] * size[1], size))


def stacked_shape(channels: int, sizes: Sequence[Size]) -> tuple[int, int, int]:
    """Return channels, height and width of the tensor that holds a view at each of these sizes."""
    different = distinct(sizes)
    return channels * len(different), max(h for h, _ in different), max(w for _, w in different)


def at_size(images: torch.Tensor, size: Size, sizes: Sequence[Size]) -> torch.Tensor:
    """Return the views of one size, (B, C, height, width) in channels_last memory, of those at all ``sizes``."""
    different = distinct(sizes)
    channels = images.shape[1] // len(different)
    first = channels * different.index(size)
    part = images[:, first : first + channels, : size[0], : size[1]]
    return part.contiguous(memory_format=torch.channels_last)


class SeveralSizes(Renderer):
    """Renders each view at every size; the channels of one size follow those of another, and zeros fill what is left."""

    def __init__(self, parts: Sequence[Renderer]) -> None:
        """Take renderers of the same pictures and views, whose ``rows`` are equal, in the order of ``distinct``."""
        self._parts, last = parts, parts[-1]
        self.space, self.device, self.normalization = last.space, last.device, last.normalization
        self.size, self.streams = last.size, last.streams

    def rows(self, samples: Integers, view_ids: Integers) -> NDArray[Any]:
        """Return the records of views, int32 (B, columns); they do not depend on the size at which a view is shown."""
        return self._parts[-1].rows(samples, view_ids)

    def pixels(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return views of the largest size before normalization, uint8 (B, H, W, C)."""
        return self._parts[-1].pixels(samples, rows)

    def render(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return normalized views at all sizes, of ``stacked_shape``, in channels_last memory."""
        return _stack([part.render(samples, rows) for part in self._parts])

    def in_dtype(self, dtype: torch.dtype) -> SeveralSizes:
        """Return a renderer of the same pictures to another dtype."""
        return SeveralSizes([part.in_dtype(dtype) for part in self._parts])

    def golden(self, num_views: int) -> str:
        """Return a hash of a few views of the largest size."""
        return self._parts[-1].golden(num_views)

    def batches(
        self, samples: Integers, view_ids: Integers, size: int
    ) -> Generator[tuple[torch.Tensor, torch.Tensor, torch.Tensor], None, None]:
        """Yield samples, rows and normalized views at all sizes, ``size`` of them at a time, in order."""
        with ExitStack() as stack:
            each = [
                stack.enter_context(closing(part.batches(samples, view_ids, size))) for part in self._parts
            ]
            for together in zip(*each, strict=True):
                numbers, rows, _ = together[-1]
                yield numbers, rows, _stack([images for _, _, images in together])


def _stack(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    channels = parts[0].shape[1]
    shape = stacked_shape(channels, [(part.shape[2], part.shape[3]) for part in parts])
    whole = torch.zeros((len(parts[0]), *shape), dtype=parts[0].dtype, device=parts[0].device)
    whole = whole.to(memory_format=torch.channels_last)
    for number, part in enumerate(parts):
        whole[:, number * channels : (number + 1) * channels, : part.shape[2], : part.shape[3]] = part
    return whole
