"""What share of a teacher's own speed does a dump reach, with everything it does beside asking?

A ResNet-20 on a CPU, batches of 128, root4, four views of 6,400 random images of CIFAR's shape. Bare is as many forward passes
on one batch in place: before each of its own, so that whatever slows the machine down for a second slows both. The whole
dump has its opening, which pads and mirrors every image once, its first batch again in another precision, and its sealing;
its shards alone are what grows, all but the first batch, which the opening has asked for.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from bancache.bench.work import dump_once
from benchmarks.harness import arguments, compared, report, spread
from benchmarks.synthetic import CPU, image_set, net, settings, teacher_of

BATCH, VIEWS = 128, 4


class Twice(nn.Module):
    """A net that first answers about images in place, and keeps what each of those passes took."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.seconds = net, list[float]()
        self.images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes) for ``images``."""
        # Smaller batches measure how much memory a dump needs; autocast measures its noise.
        if len(images) == BATCH and not torch.is_autocast_enabled("cpu"):
            began = time.thread_time()
            self.net(self.images)
            self.seconds.append(time.thread_time() - began)
        return self.net(images)  # type: ignore[no-any-return]

    def clock(self) -> float:
        """Return the CPU time of all threads without those passes."""
        return time.process_time() - sum(self.seconds)


def main() -> None:
    """Measure and print."""
    options = arguments("dump", str(__doc__))
    count, rounds = (256, 2) if options.quick else (6_400, 9)
    entries, data = count * VIEWS, image_set(count)
    data.fingerprint  # noqa: B018 (known before anything is timed)
    model = Twice(net("convnet-4" if options.quick else "resnet-20"))
    teacher, asked = teacher_of(model, "net"), settings(batch_size=BATCH, num_views=VIEWS)
    timed: dict[str, list[float]] = {name: [] for name in ("bare, whole", "whole", "bare, shards", "shards")}
    for turn in range(rounds + 1):
        model.seconds.clear()
        whole, shards = dump_once(teacher, data, asked, CPU, model.clock)
        bare = model.seconds
        assert len(bare) * BATCH == entries
        if turn:  # the first warms up
            for name, seconds in zip(timed, (sum(bare), whole, sum(bare[1:]), shards), strict=True):
                timed[name].append(seconds)
    rows: list[dict[str, Any]] = [
        {
            "what": what,
            "entries": entries,
            "microseconds_an_image": spread([v / entries * 1e6 for v in timed[name]]),
        }
        for what, name in (
            ("bare teacher", "bare, whole"),
            ("dump, whole", "whole"),
            ("dump, shards", "shards"),
        )
    ]
    rows += [
        compared(f"bare teacher / {what}", timed[f"bare, {name}"], timed[name], ">= 0.97")
        for what, name in (("whole dump", "whole"), ("shards of a dump", "shards"))
    ]
    report("dump", rows, options)


if __name__ == "__main__":
    main()
