"""What does a view of a photograph cost, beside Pillow?

A box of a picture becomes 224 x 224 pixels, every other one mirrored, normalized to float32: a whole picture of 400 x 380, and
a crop of 180 x 240 of it, which is nearer to what a resized crop shows. Ours is exact, by torch alone and by numba; Pillow's
bilinear resize is followed by numpy's mirror, difference and product, as fast as these can be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from bancache.views import numba_resample, resample
from benchmarks.harness import arguments, compared, interleave, report, spread
from benchmarks.synthetic import NORMAL

HEIGHT, WIDTH, SIZE = 380, 400, 224
BOXES = {"400 x 380": (0, 0, HEIGHT, WIDTH), "180 x 240": (60, 90, 240, 180)}
# What Pillow takes is the unit: 1.01 ms for its resize alone where these aims were set.
AIMS = {"numba": "<= 0.5", "torch": "<= 3.0"}


def views(box: tuple[int, int, int, int], count: int) -> dict[str, Callable[[], Any]]:
    """Return what makes ``count`` normalized views of pictures, one way each."""
    pictures = np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
    number = torch.arange(count)
    batch = (
        torch.from_numpy(pictures).view(-1),
        *(number * pictures[0].size, torch.full((count,), HEIGHT), torch.full((count,), WIDTH), 3),
        *(torch.tensor([box] * count), number % 2, (SIZE, SIZE)),
    )
    # Written again and again, as a loader's buffer is: new memory costs as much as the arithmetic.
    out = torch.empty((count, SIZE, SIZE, 3))
    mean, scale = torch.tensor(NORMAL.mean), 1 / torch.tensor(NORMAL.std)
    # One constant a number of a view: those that repeat after a few pixels cost more than the arithmetic.
    each_mean, each_scale = (part.repeat(SIZE * SIZE).view(SIZE, SIZE, 3) for part in (mean, scale))
    opened = [Image.fromarray(picture) for picture in pictures]
    top, left, height, width = box
    written = out.numpy()

    def by_torch() -> torch.Tensor:
        return torch.sub(resample.resample(*batch, mode="reflect"), each_mean, out=out).mul_(each_scale)

    def by_numba() -> torch.Tensor:
        return numba_resample.resample(*batch, mode="reflect", normalization=(mean, scale), out=out)

    def pillow_resize() -> list[Image.Image]:
        part = (left, top, left + width, top + height)
        return [picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR, part) for picture in opened]

    def by_pillow() -> None:
        for at, resized in enumerate(pillow_resize()):
            shown = np.asarray(resized)
            np.subtract(shown[:, ::-1] if at % 2 else shown, each_mean.numpy(), out=written[at])
            written[at] *= each_scale.numpy()

    return {"torch": by_torch, "numba": by_numba, "pillow": by_pillow, "pillow's resize alone": pillow_resize}


def resampling(*, quick: bool) -> list[dict[str, Any]]:
    """Return the lines of resampling, mirroring and normalizing."""
    count = 2 if quick else 32
    rows = []
    for name, box in BOXES.items():
        taken = interleave(views(box, count), rounds=2 if quick else 25)
        rows += [
            {
                "what": way,
                "box": name,
                "milliseconds_a_view": spread([1e3 * second / count for second in seconds]),
            }
            for way, seconds in taken.items()
        ]
        rows += [
            compared(
                f"{way} / pillow's resize alone", taken[way], taken["pillow's resize alone"], aim, box=name
            )
            for way, aim in AIMS.items()
        ]
    return rows


def main() -> None:
    """Measure and print."""
    options = arguments("photographs", str(__doc__))
    report("photographs", resampling(quick=options.quick), options)


if __name__ == "__main__":
    main()
