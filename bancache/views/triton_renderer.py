"""A Triton kernel that renders a batch of views: gather, pad, crop, flip, normalize and store in one pass.

The images stay on the device as uint8 (N, H, W, C), without padded or mirrored copies. One program writes a run of one
view's outputs, eight per thread, so that 16-bit views are stored 16 bytes at a time. View ids come with the batch: to
compute them here would be a thousand instructions per view (twelve rounds of philox), repeated by each of its warps,
beside about two hundred and fifty for everything else.

``lattice_renderer.LatticeRenderer`` is the reference and the fallback. ``tests/views/test_triton_renderer.py`` shows that
both agree bit for bit where Triton interprets the kernel, and that the machine code has no fused multiply-add.
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
from bancache.system.resident import resident
from bancache.views.lattice import Lattice
from bancache.views.lattice_renderer import LatticeRenderer
from bancache.views.model_input import Normalization

if find_spec("triton") is not None:  # the kernel's source refers to ``tl`` when it is compiled
    import triton
    import triton.language as tl

# How the kernel stores each dtype. Triton's interpreter truncates to bfloat16 where a GPU rounds, so under the
# interpreter the kernel rounds with integers and stores the bits.
KINDS = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16", torch.uint8: "uint8"}
_BITS = "bfloat16-bits"
_MOST_CHANNELS = 4
# Eight outputs per thread.
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
    """Write ``SIZE`` outputs of one view of the batch; ``out`` is (B, H, W, C)."""
    row = tl.program_id(0).to(tl.int64)
    sample, view = tl.load(samples + row), tl.load(views + row).to(tl.int32)
    span: tl.constexpr = 2 * PAD + 1
    flip, dy, dx = view // (span * span), view // span % span - PAD, view % span - PAD
    place = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    # Most sizes are whole runs; a mask that is always true costs nothing.
    inside = (place < HEIGHT * WIDTH * CHANNELS) | (HEIGHT * WIDTH * CHANNELS % SIZE == 0)
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
        mean, scale = mean0, scale0
        if CHANNELS > 1:
            mean, scale = tl.where(channel < 1, mean, mean1), tl.where(channel < 1, scale, scale1)
        if CHANNELS > 2:
            mean, scale = tl.where(channel < 2, mean, mean2), tl.where(channel < 2, scale, scale2)
        if CHANNELS > 3:
            mean, scale = tl.where(channel < 3, mean, mean3), tl.where(channel < 3, scale, scale3)
        value = (value.to(tl.float32) - mean) * scale
        if KIND == "float16":
            value = value.to(tl.float16)
        if KIND == "bfloat16":
            value = value.to(tl.bfloat16)
        if KIND == "bfloat16-bits":
            bits = value.to(tl.int32, bitcast=True)
            value = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int16)
    tl.store(out + row * (HEIGHT * WIDTH * CHANNELS) + place, value, mask=inside)


class TritonRenderer(LatticeRenderer):
    """Renders by one kernel, on a CUDA device or under Triton's interpreter.

    Shapes and bits are those of ``LatticeRenderer``. It needs a third of the memory and can also give 16-bit floats.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        space: Lattice,
        normalization: Normalization,
        *,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Move the images, with up to 4 channels, to the device as they are.

        ``dtype`` is float32, or float16 or bfloat16, rounded from float32 to nearest, ties to even.
        """
        error = unavailable(torch.device(device), images.shape[3])
        if error is not None:
            raise error
        # One image is enough for the checks and the sizes; the padded copy of it is not used.
        super().__init__(images[:1], space, normalization, device=device)
        self.dtype = dtype
        self._count = len(images)
        self._images = resident(np.ascontiguousarray(images), self.device)
        spare = [0.0] * (_MOST_CHANNELS - self._channels)
        # float32 as in the reference: the scale is rounded once, after the division.
        mean = np.asarray(normalization.mean).astype(np.float32).tolist()
        scale = (1.0 / np.asarray(normalization.std)).astype(np.float32).tolist()
        self._numbers = [*mean, *spare, *scale, *spare]

    def pixels(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return views before normalization, uint8 (B, H, W, C)."""
        return self._launch(samples, rows, torch.uint8)

    def render(self, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return normalized views, ``dtype`` (B, C, H, W) in channels_last memory."""
        return self._launch(samples, rows, self.dtype).permute(0, 3, 1, 2)

    def in_dtype(self, dtype: torch.dtype) -> TritonRenderer:
        """Return a renderer of the same pictures, which both share, to another dtype."""
        other = copy.copy(self)
        other.dtype = dtype
        return other

    def golden(self, num_views: int) -> str:
        """Return the hash of a few views rendered in float32, whatever ``dtype`` is."""
        return LatticeRenderer.golden(self.in_dtype(torch.float32), num_views)

    def _launch(self, samples: torch.Tensor, view_ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        height, width, channels = self._height, self._width, self._channels
        interpreted = self.device.type == "cpu"
        bits = interpreted and dtype == torch.bfloat16
        shape = (len(samples), height, width, channels)
        out = torch.empty(shape, dtype=torch.int16 if bits else dtype, device=self.device)
        grid = (len(samples), -(-height * width * channels // SIZE))
        with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
            _compiled()[grid](
                *(self._images, samples, view_ids, out, *self._numbers),
                HEIGHT=height,
                WIDTH=width,
                CHANNELS=channels,
                PAD=self.space.pad,
                REFLECT=self.space.mode == "reflect",
                KIND=_BITS if bits else KINDS[dtype],
                SIZE=SIZE,
                num_warps=WARPS,
                # A difference before a product has nothing to fuse; this tells every compiler.
                **({} if interpreted else {"enable_fp_fusion": False}),
            )
        return out.view(torch.bfloat16) if bits else out


def unavailable(device: torch.device, channels: int) -> UsageError | MissingExtraError | None:
    """Return why the kernel cannot render on a device, or None."""
    if find_spec("triton") is None:
        return MissingExtraError("triton is not installed", hint="pip install triton")
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return UsageError(
            f"the view kernel does not run on '{device.type}'",
            hint="use bancache.views.lattice_renderer.LatticeRenderer, which gives the same bits",
        )
    if channels > _MOST_CHANNELS:
        return UsageError(f"the view kernel takes up to {_MOST_CHANNELS} channels, not {channels}")
    return None


@cache
def _compiled() -> Any:
    """Return the kernel for launching; Triton compiles it at the first batch of each image size and dtype."""
    return triton.jit(view_kernel)
