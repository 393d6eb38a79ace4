"""What does it cost to render a batch of views, against copying the same bytes and against the loaders people use?

Batches of 512 random crops (pad 4) and flips of 50,000 images of 32 x 32 pixels in color, normalized to float32, over
images that do not fit a cache: rendered by torch alone and by numba, each with the views' addresses, which are found once
an epoch. Copied bytes: 3,072 read and 12,288 written an image. The DataLoader has its images in RAM, no workers, and the
transforms that everybody uses. The whole-epoch loader is what GPU speed runs do, on the CPU: normalized and padded once,
a mask for each shift over the whole set, flips by a second mask, then a gather by a random order for each batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torchvision import transforms

from bancache.bench.work import copying
from bancache.system import numba as compiled
from bancache.views import Plan, ViewSpace
from bancache.views.renderer import Renderer
from benchmarks.harness import arguments, compared, interleave, report, spread
from benchmarks.synthetic import CPU, NORMAL, image_set

BATCH = 512


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


class WholeEpoch:
    """All crops and flips of an epoch at once, then batches of it by a random order."""

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
        for which in torch.randperm(count).split(BATCH):
            yield shown[which]


def variants(count: int, batches: int) -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    """Return what is timed, and how many images each call makes where that is not ``batches`` batches."""
    data, space = image_set(count), ViewSpace.parse("crop4-flip")
    order = Plan(count, space.size, seed=0).order(0)
    views = torch.from_numpy(space.view_ids(order, 0)).split(BATCH)[:batches]
    samples = torch.from_numpy(order).split(BATCH)[:batches]
    copy = copying(BATCH * 3_072, BATCH * 12_288, CPU, count=batches)
    loader = torch.utils.data.DataLoader(InMemory(data.images), batch_size=BATCH, shuffle=True)
    whole, torch_alone = (
        WholeEpoch(torch.tensor(data.images[: BATCH * batches])),
        Renderer(data.images, space, NORMAL, accelerator="none"),
    )

    def rendered(renderer: Renderer) -> Callable[[], None]:
        def run() -> None:
            for which, ids in zip(samples, views, strict=True):
                renderer.render(which, ids)  # and dropped before the next, as by a training loop

        return run

    timed: dict[str, Callable[[], Any]] = {
        "memcpy": lambda: [copy() for _ in range(batches)],
        "render": rendered(torch_alone),
        "addresses": lambda: space.view_ids(order[: batches * BATCH], 1),
        "dataloader": lambda: next(iter(loader)),
        "whole-epoch loader": lambda: [None for _ in whole.epoch()],
    }
    if compiled.is_installed():
        from bancache.views.walk import view_ids

        timed["render, numba"] = rendered(Renderer(data.images, space, NORMAL, accelerator="numba"))
        timed["addresses, numba"] = lambda: view_ids(space, order[: batches * BATCH], 1)
    return timed, {"dataloader": BATCH, "whole-epoch loader": BATCH * batches}


def main() -> None:
    """Measure and print."""
    options = arguments("views", str(__doc__))
    timed, images = variants(*((2_048, 2) if options.quick else (50_000, 24)))
    batches = 2 if options.quick else 24
    seconds = interleave(timed, rounds=2 if options.quick else 25)
    each = {n: [v / images.get(n, BATCH * batches) * 1e9 for v in values] for n, values in seconds.items()}
    rows = [{"what": name, "nanoseconds_an_image": spread(values)} for name, values in each.items()]
    renderings = [name for name in each if name.startswith("render")]
    for name, target in zip(renderings, (">= 0.30", ">= 0.40"), strict=False):
        rows.append(compared(f"memcpy / {name}", each["memcpy"], each[name], target))
    both = {
        way: [a + b for a, b in zip(each[f"render{way}"], each[f"addresses{way}"], strict=True)]
        for way in ("", ", numba")
        if f"render{way}" in each
    }
    rows += [
        compared(f"memcpy / (render + addresses){way}", each["memcpy"], both[way], "none") for way in both
    ]
    rows += [
        compared("dataloader / render", each["dataloader"], each["render"], ">= 50"),
        compared("whole-epoch loader / (render + addresses)", each["whole-epoch loader"], both[""], ">= 8"),
    ]
    report("views", rows, options)


if __name__ == "__main__":
    main()
