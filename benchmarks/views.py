"""What does it cost to render a batch of views, against copying the same bytes, and against a torchvision DataLoader?

Batches of 512 random crops (pad 4) and flips of 50,000 images of 32 x 32 pixels in colour, normalised to
float32, over images that do not fit a cache. Copied bytes: 3,072 read and 12,288 written an image. The
DataLoader has its images in RAM, no workers, and the transforms that everybody uses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torchvision import transforms

from bancache.views import Plan, ViewSpace
from bancache.views.apply import Normalisation, Renderer
from benchmarks.harness import arguments, interleave, ratios, report, spread

BATCH = 512
NORMAL = Normalisation((125.3, 123.0, 113.9), (63.0, 62.1, 66.7))


class InMemory(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Images in RAM behind torchvision's transforms for CIFAR."""

    def __init__(self, images: Any) -> None:
        self.images = images
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([m / 255 for m in NORMAL.mean], [s / 255 for s in NORMAL.std]),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), 0


def main() -> None:
    """Measure and print."""
    options = arguments("views", str(__doc__))
    count, batches, rounds = (2_048, 2, 2) if options.quick else (50_000, 24, 15)
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    space = ViewSpace.parse("crop4-flip")
    renderer = Renderer(images, space, NORMAL)
    order = Plan(count, space.size, seed=0).order(0)
    views = torch.from_numpy(space.view_ids(order, 0)).split(BATCH)[:batches]
    samples = torch.from_numpy(order).split(BATCH)[:batches]
    source = torch.zeros(count, 7_680, dtype=torch.uint8)  # copying it reads and writes 15,360 bytes an image
    target = torch.empty(BATCH, 7_680, dtype=torch.uint8)
    loader = torch.utils.data.DataLoader(InMemory(images), batch_size=BATCH, shuffle=True)

    def render() -> None:
        for which, ids in zip(samples, views, strict=True):
            renderer.render(which, ids)

    def pixels() -> None:
        for which, ids in zip(samples, views, strict=True):
            renderer.pixels(which, ids)

    def memcpy() -> None:
        for turn in range(batches):
            target.copy_(source[turn * BATCH % (count - BATCH) :][:BATCH])

    def addresses() -> None:
        space.view_ids(order[: batches * BATCH], 1)

    def dataloader() -> None:
        next(iter(loader))

    variants = {
        "memcpy": memcpy,
        "render": render,
        "pixels": pixels,
        "addresses": addresses,
        "dataloader": dataloader,
    }
    seconds = interleave(variants, rounds=rounds)
    per_image = {
        name: [value / (BATCH if name == "dataloader" else BATCH * batches) * 1e9 for value in values]
        for name, values in seconds.items()
    }
    rows = [{"what": name, "nanoseconds_an_image": spread(values)} for name, values in per_image.items()]
    rows += [
        {
            "ratio": "memcpy / render",
            "value": ratios(per_image["memcpy"], per_image["render"]),
            "target": 0.30,
        },
        {
            "ratio": "dataloader / render",
            "value": ratios(per_image["dataloader"], per_image["render"]),
            "target": 50,
        },
    ]
    report("views", rows, options)


if __name__ == "__main__":
    main()
