"""How much of a dump is not the teacher? A whole dump, against the bare forward pass on one batch as a graph.

G4: at least 0.98, with rendering, encoding, measuring, compressing, writing and closing, by the wall clock. The bare
pass is captured and reads the same images again and again, which is the most that a GPU can give.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bancache.dumping import dump
from bancache.models.teacher import Teacher
from benchmarks.gpu import setting
from benchmarks.gpu.timing import Options, milliseconds, options, recorded, report
from benchmarks.harness import ratios, spread

NET, BATCH, NUM_VIEWS, ROUNDS = "wrn-28-10", 500, 2, 3


def main() -> None:
    """Measure and print."""
    given = options("dumping", str(__doc__))
    if not given.cuda:
        print("dumping: no CUDA device, so the bare pass is not captured, and the teacher is a small one")
    name, count, batch = ("resnet-8", 60, 30) if given.quick else (NET, 50_000, BATCH)
    data, asked = setting.noise(count), setting.teacher(name, given)
    rounds = 1 if given.quick else ROUNDS
    whole, bare = [], []
    for turn in range(rounds + 1):
        with TemporaryDirectory() as folder:
            before = time.perf_counter()
            dump(
                asked,
                data,
                setting.SPEC,
                Path(folder) / "a.zarr",
                setting.settings(NUM_VIEWS, batch),
                device=given.device,
            )
            seconds = time.perf_counter() - before
        passed = bare_seconds(asked, batch, count * NUM_VIEWS // batch, given)
        if turn:  # the first round warms up
            whole.append(seconds)
            bare.append(passed)
    row: dict[str, Any] = {
        "goal": "G4",
        "net": name,
        "batch": batch,
        "entries": count * NUM_VIEWS,
        "target": 0.98,
    }
    figures = {
        "bare_seconds": spread(bare),
        "dump_seconds": spread(whole),
        "bare / dump": ratios(bare, whole),
    }
    report("dumping", [row | figures], given)


def bare_seconds(asked: Teacher, batch: int, passes: int, given: Options) -> float:
    """Return what so many forward passes take on a batch that is there already."""
    images = torch.randn(batch, 3, 32, 32, device=given.device).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward() -> None:
        # A cache of cast weights would belong to another graph.
        with torch.autocast(given.device.type, torch.bfloat16, cache_enabled=False):
            asked.model(images)

    replay = recorded(forward, given)

    def work() -> None:
        for _ in range(passes):
            replay()

    milliseconds(replay, given)
    return milliseconds(work, given) / 1e3


if __name__ == "__main__":
    main()
