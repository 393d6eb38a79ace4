"""The views of a batch in one GPU kernel: gather, pad, crop, flip, normalize, store; the bits of ``apply.Renderer``.

The images stay on the device as they are, uint8 (N, H, W, C): no padded and no mirrored copy. A program
shows a run of one view's outputs, eight to a thread, so that 16-bit views are stored 16 bytes at a time. View
numbers come with the batch and are not computed here: twelve rounds of philox are a thousand
instructions a view that every warp of it would repeat, against some three hundred for all else.

``apply.Renderer`` is the twin and the fallback. ``tests/views/test_triton_renderer.py`` holds that the two agree bit
for bit where triton interprets the kernel, and that its machine code has no fused multiply-add.
"""

from __future__ import annotations

import copy
import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.errors import MissingExtraError, UsageError
from bancache.views.renderer import Normalization, Renderer
from bancache.views.space import ViewSpace

if find_spec("triton") is not None:  # the kernel is read when it is compiled, and then finds ``tl`` here
    import triton
    import triton.language as tl

# What is stored for each dtype. Triton's interpreter truncates to bfloat16 where a GPU rounds, so there
# the kernel rounds with integers and stores the bits.
KINDS = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16", torch.uint8: "uint8"}
_BITS = "bfloat16-bits"
_MOST_CHANNELS = 4
# Eight outputs a thread.
SIZE, WARPS = 1024, 4


def view_kernel(  # type: ignore[no-untyped-def]  # triton reads the names, not the types
    images,
    samples,
    views,
    out,
    mean0,
    mean1,
    mean2,
    mean3,
    scale0,
    scale1,
    scale2,
    scale3,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    PAD: tl.constexpr,
    REFLECT: tl.constexpr,
    KIND: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Write outputs [block · SIZE, …) of the view of one row of the batch; ``out`` is (B, H, W, C)."""
    row = tl.program_id(0).to(tl.int64)
    sample, view = tl.load(samples + row), tl.load(views + row).to(tl.int32)
    span: tl.constexpr = 2 * PAD + 1
    flip, dy, dx = view // (span * span), view // span % span - PAD, view % span - PAD
    place = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = place < HEIGHT * WIDTH * CHANNELS
    channel, pixel = place % CHANNELS, place // CHANNELS
    y, x = pixel // WIDTH + dy, pixel % WIDTH
    # The crop is cut first and mirrored second.
    x = (x + flip * (WIDTH - 1 - 2 * x)) + dx
    seen = inside
    if REFLECT:
        y, x = tl.abs(y), tl.abs(x)
        y, x = HEIGHT - 1 - tl.abs(HEIGHT - 1 - y), WIDTH - 1 - tl.abs(WIDTH - 1 - x)
    else:
        seen = inside & (y >= 0) & (y < HEIGHT) & (x >= 0) & (x < WIDTH)
    source = images + sample * (HEIGHT * WIDTH * CHANNELS)
    value = tl.load(source + (y * WIDTH + x) * CHANNELS + channel, mask=seen, other=0)
    if KIND != "uint8":
        mean = tl.where(
            channel == 0, mean0, tl.where(channel == 1, mean1, tl.where(channel == 2, mean2, mean3))
        )
        scale = tl.where(
            channel == 0, scale0, tl.where(channel == 1, scale1, tl.where(channel == 2, scale2, scale3))
        )
        value = (value.to(tl.float32) - mean) * scale
        if KIND == "float16":
            value = value.to(tl.float16)
        if KIND == "bfloat16":
            value = value.to(tl.bfloat16)
        if KIND == "bfloat16-bits":
            bits = value.to(tl.int32, bitcast=True)
            value = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int16)
    tl.store(out + row * (HEIGHT * WIDTH * CHANNELS) + place, value, mask=inside)


class KernelRenderer(Renderer):
    """A renderer whose views come from one kernel, on a CUDA device or where triton interprets.

    Same arguments, same shapes, same bits as ``Renderer``; a third of its memory, and 16-bit floats if asked.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        space: ViewSpace,
        normalization: Normalization,
        *,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Move the images to the device, as they are.

        Args:
            images: uint8 (N, H, W, C), C up to 4.
            space: The views to show.
            normalization: One mean and std for each channel.
            device: A CUDA device.
            dtype: Of rendered views: float32, or float16 or bfloat16, rounded from float32 to nearest even.

        Raises:
            UsageError: The padding or the number of channels does not fit, or nothing runs kernels there.
            MissingExtraError: Triton is not installed.
        """
        refuse = unable(torch.device(device), images.shape[3])
        if refuse is not None:
            raise refuse
        super().__init__(images[:1], space, normalization, device=device)  # checks what has to fit
        self.dtype = dtype
        self._count = len(images)
        self._images = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        spare = [0.0] * (_MOST_CHANNELS - self._channels)
        # As float32, as the twin has them; the scale is rounded once, after the division.
        mean = np.asarray(normalization.mean).astype(np.float32).tolist()
        scale = (1.0 / np.asarray(normalization.std)).astype(np.float32).tolist()
        self._numbers = [*mean, *spare, *scale, *spare]

    def pixels(self, samples: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return views as they are, uint8 (B, H, W, C); arguments as for ``Renderer.pixels``."""
        return self._show(samples, ids, torch.uint8)

    def render(self, samples: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return normalized views, ``dtype`` (B, C, H, W) in channels_last memory."""
        return self._show(samples, ids, self.dtype).permute(0, 3, 1, 2)

    def golden(self, num_views: int) -> str:
        """Return the hash of a few views in float32, whatever is rendered otherwise."""
        exact = copy.copy(self)
        exact.dtype = torch.float32
        return Renderer.golden(exact, num_views)

    def _show(self, samples: torch.Tensor, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        height, width, channels = self._height, self._width, self._channels
        interpreted = self.device.type == "cpu"
        bits = interpreted and dtype == torch.bfloat16
        shape = (len(samples), height, width, channels)
        out = torch.empty(shape, dtype=torch.int16 if bits else dtype, device=self.device)
        grid = (len(samples), -(-height * width * channels // SIZE))
        with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
            _compiled()[grid](
                *(self._images, samples, ids, out, *self._numbers),
                HEIGHT=height,
                WIDTH=width,
                CHANNELS=channels,
                PAD=self.space.pad,
                REFLECT=self.space.mode == "reflect",
                KIND=_BITS if bits else KINDS[dtype],
                SIZE=SIZE,
                num_warps=WARPS,
                # There is nothing to fuse in a difference before a product; this says so to every compiler.
                **({} if interpreted else {"enable_fp_fusion": False}),
            )
        return out.view(torch.bfloat16) if bits else out


def unable(device: torch.device, channels: int) -> UsageError | MissingExtraError | None:
    """Return why the kernel cannot render there, or None."""
    if find_spec("triton") is None:
        return MissingExtraError("triton is not installed", hint="pip install triton")
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return UsageError(
            f"the view kernel does not run on '{device.type}'",
            hint="use apply.Renderer, which gives the same bits",
        )
    if channels > _MOST_CHANNELS:
        return UsageError(f"the view kernel takes up to {_MOST_CHANNELS} channels, not {channels}")
    return None


@cache
def _compiled() -> Any:
    """Return the kernel as triton launches it; compiled for a kind of views at their first batch."""
    return triton.jit(view_kernel)
