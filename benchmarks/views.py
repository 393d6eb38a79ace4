"""What does it cost to render a batch of views, beside the loaders that people use?

Batches of 512 random crops (pad 4) and flips of 50,000 color images of 32 x 32 pixels, normalized to float32, by torch alone;
and the view ids of an epoch, which are computed once per epoch. The DataLoader has its images in RAM, no workers, and the
usual torchvision transforms. The whole-epoch loader does what the fastest CIFAR programs do on a GPU, on the CPU: normalize
and pad once, one mask for each shift over the whole set, flips by another mask, then a gather in a random order per batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torchvision import transforms

from bancache.loader.epoch_sampler import EpochSampler
from bancache.sources.image_set import ImageSet
from bancache.views import ViewSpace
from bancache.views.lattice_renderer import LatticeRenderer
from benchmarks.harness import arguments, compared, interleave, report, spread
from benchmarks.synthetic import NORMAL, image_set

BATCH = 512


class InMemory(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Images in RAM behind torchvision's transforms for CIFAR."""

    def __init__(self, data: ImageSet) -> None:
        self.images, self.labels = data.images, data.labels.tolist()
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
        return self.transform(self.images[index]), self.labels[index]


class WholeEpoch:
    """All crops and flips of an epoch at once, then batches in a random order."""

    def __init__(self, images: torch.Tensor, pad: int = 4) -> None:
        mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (NORMAL.mean, NORMAL.std))
        plain = (images.permute(0, 3, 1, 2).float() - mean) / std
        self.padded = torch.nn.functional.pad(plain, (pad,) * 4, mode="reflect")
        self.pad, self.size = pad, images.shape[1]
        self.crops = torch.empty_like(plain)

    def epoch(self) -> Any:
        """Yield the batches."""
        count, span, size = len(self.padded), 2 * self.pad + 1, self.size
        shifts = torch.randint(0, span, (count, 2))
        # Rows first, then columns, as the fast runs do for more than 25 shifts: 2 x 9 masks, not 81.
        rows = torch.empty((count, 3, size, size + 2 * self.pad))
        for dy in range(span):
            mask = shifts[:, 0] == dy
            rows[mask] = self.padded[mask, :, dy : dy + size]
        for dx in range(span):
            mask = shifts[:, 1] == dx
            self.crops[mask] = rows[mask, :, :, dx : dx + size]
        flip = (torch.rand(count) < 0.5).view(-1, 1, 1, 1)
        shown = torch.where(flip, self.crops.flip(-1), self.crops)
        for which in torch.split(torch.randperm(count), BATCH):
            yield shown[which]


def variants(count: int, batches: int) -> dict[str, tuple[Callable[[], Any], int]]:
    """Return each timed function with the number of images that one call handles."""
    data, space = image_set(count), ViewSpace.parse("crop4-flip")
    order = EpochSampler(count, space.size, seed=0).order(0)
    view_ids = torch.split(torch.from_numpy(space.view_ids(order, 0)), BATCH)[:batches]
    samples = torch.split(torch.from_numpy(order), BATCH)[:batches]
    renderer = LatticeRenderer(data.images, space, NORMAL)
    loader = torch.utils.data.DataLoader(InMemory(data), batch_size=BATCH, shuffle=True)
    whole = WholeEpoch(torch.tensor(data.images[: BATCH * batches]))

    def render() -> None:
        for which, ids in zip(samples, view_ids, strict=True):
            renderer.render(which, ids)  # dropped before the next batch, as in a training loop

    return {
        "render": (render, BATCH * batches),
        "view ids": (lambda: space.view_ids(order[: batches * BATCH], 1), BATCH * batches),
        "dataloader": (lambda: next(iter(loader)), BATCH),
        "whole-epoch loader": (lambda: [None for _ in whole.epoch()], BATCH * batches),
    }


def main() -> None:
    """Measure and print."""
    options = arguments("views", str(__doc__))
    timed = variants(*((512, 2) if options.quick else (50_000, 24)))
    functions = {name: function for name, (function, _) in timed.items()}
    seconds = interleave(functions, rounds=2 if options.quick else 25)
    each = {name: [v / timed[name][1] * 1e9 for v in values] for name, values in seconds.items()}
    rows = [{"what": name, "nanoseconds_an_image": spread(values)} for name, values in each.items()]
    both = [a + b for a, b in zip(each["render"], each["view ids"], strict=True)]
    rows += [
        compared("dataloader / render", each["dataloader"], each["render"], ">= 50"),
        compared("whole-epoch loader / (render + view ids)", each["whole-epoch loader"], both, ">= 8"),
    ]
    report("views", rows, options)


if __name__ == "__main__":
    main()
