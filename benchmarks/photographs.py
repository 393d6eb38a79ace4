"""What does a view of a photograph cost, beside Pillow?

A box of a picture becomes 224 x 224 pixels, every other one mirrored, normalized to float32: a whole picture of 400 x 380, and
a crop of 180 x 240 of it, which is nearer to what a resized crop shows. Ours is exact, by torch alone and by numba; Pillow's
bilinear resize is followed by numpy's mirror, difference and product, as fast as these can be written.

And what do decoding and a view of `rrc-flip-rand-m9-n2-erase0.25` cost, beside torchvision's transforms behind a DataLoader without
workers? Both decode by Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from bancache.system.ragged import RaggedImages
from bancache.views import ViewSpace, numba_resample, resample
from bancache.views.factory import choose_renderer
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


class Files(Dataset[torch.Tensor]):
    """Encoded pictures, each decoded and changed by torchvision when it is asked for."""

    def __init__(self, encoded: list[bytes]) -> None:
        from torchvision.transforms import v2

        self._encoded = encoded
        self._transform = v2.Compose(
            [
                v2.RandomResizedCrop(SIZE),
                v2.RandomHorizontalFlip(),
                v2.RandAugment(num_ops=2, magnitude=9),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([part / 255 for part in NORMAL.mean], [part / 255 for part in NORMAL.std]),
                v2.RandomErasing(0.25),
            ]
        )

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> torch.Tensor:
        changed: torch.Tensor = self._transform(_decoded(self._encoded[index]))
        return changed


def decoding(*, quick: bool) -> list[dict[str, Any]]:
    """Return the lines of decoding and changing JPEGs, the same kinds of changes by torchvision and by us."""
    count, batch = (8, 4) if quick else (128, 32)
    encoded = [_encoded(seed) for seed in range(count)]
    loader = DataLoader(Files(encoded), batch_size=batch)
    space, indices = ViewSpace.parse("rrc-flip-rand-m9-n2-erase0.25"), iter(range(1 << 30))

    def ours() -> None:
        view_index = next(indices)
        for start in range(0, count, batch):
            decoded = [np.asarray(_decoded(each)) for each in encoded[start : start + batch]]
            flat = np.concatenate([picture.reshape(-1) for picture in decoded])
            heights, widths = (np.array([each.shape[axis] for each in decoded], np.int32) for axis in (0, 1))
            images = RaggedImages(flat, heights, widths, 3)
            renderer = choose_renderer(images, space, NORMAL, size=(SIZE, SIZE))
            samples = np.arange(len(decoded))
            renderer.render(*renderer.to_device(samples, space.view_ids(samples, view_index)))

    ways = {
        "ours": ours,
        "torchvision": lambda: list(loader),
        "decoding alone": lambda: [np.asarray(_decoded(each)) for each in encoded],
    }
    taken = interleave(ways, rounds=2 if quick else 15)
    what = {"views": space.name, "picture": "500 x 375, JPEG"}
    return [
        *(
            {"what": way, **what, "milliseconds_a_view": spread([1e3 * each / count for each in seconds])}
            for way, seconds in taken.items()
        ),
        compared("torchvision / ours", taken["torchvision"], taken["ours"], ">= 1.5", **what),
    ]


def _encoded(seed: int) -> bytes:
    """Return a JPEG of 500 x 375 pixels with edges and smooth parts, as a photograph has them."""
    small = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _decoded(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded)).convert("RGB")


def main() -> None:
    """Measure and print."""
    options = arguments("photographs", str(__doc__))
    rows = [*resampling(quick=options.quick), *decoding(quick=options.quick)]
    report("photographs", rows, options)


if __name__ == "__main__":
    main()
