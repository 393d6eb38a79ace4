"""What share of a teacher's own speed does a dump reach, with everything it does beside asking?

A ResNet-20 on a CPU, batches of 128, root4, four views of 6,400 random images of CIFAR's shape. Bare is the same number of
forward passes on one batch in place. The whole dump has its opening, which pads and mirrors every image once, a probe of
one batch, that batch again in two precisions, and its sealing, which together cost as much as three or four batches of its
two hundred; its regions alone are what grows.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from bancache.bench.work import ask_in_place, dump_once
from benchmarks.harness import arguments, compared, interleave, report, spread
from benchmarks.synthetic import CPU, image_set, net, settings, teacher_of

BATCH, VIEWS = 128, 4


def main() -> None:
    """Measure and print."""
    options = arguments("dump", str(__doc__))
    count, rounds = (256, 2) if options.quick else (6_400, 15)
    entries = count * VIEWS
    data, teacher = image_set(count), teacher_of(net("resnet-20" if not options.quick else "resnet-8"), "net")
    images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    data.fingerprint  # noqa: B018 (known before anything is timed)
    regions: list[float] = []

    def dumped() -> None:
        regions.append(
            dump_once(teacher, data, settings(batch_size=BATCH, num_views=VIEWS), CPU, time.process_time)[1]
        )

    timed = interleave(
        {"bare teacher": lambda: ask_in_place(teacher, images, entries // BATCH), "dump, whole": dumped},
        rounds=rounds,
    )
    timed["dump, regions"] = regions[1:]  # the first round warmed up
    rows: list[dict[str, Any]] = [
        {
            "what": name,
            "entries": entries,
            "microseconds_an_image": spread([v / entries * 1e6 for v in values]),
        }
        for name, values in timed.items()
    ]
    rows += [
        compared(f"bare teacher / {what}", timed["bare teacher"], timed[name], ">= 0.97")
        for what, name in (("whole dump", "dump, whole"), ("regions of a dump", "dump, regions"))
    ]
    report("dump", rows, options)


if __name__ == "__main__":
    main()
