"""How much of a dump is not the teacher? A whole dump, against the bare forward pass on one batch as a graph.

The dump renders, encodes, measures, compresses, writes and closes. The bare pass is captured and reads the same images,
in bfloat16, again and again, which is the most that a GPU can give. The aims are for whole dumps. A dump's start, before
its first shard, takes a part of a second whatever the number of views: a good part of the few views that there is time
for here, next to nothing of all 162. So the ratio without it is shown, too. Beside the smallest teacher, what people
write: crops by one gather, an eager teacher, float16 logits that stay on the device.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bancache.bench.work import ShardTimer
from bancache.dumping import DumpSettings, dump
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from benchmarks import by_hand
from benchmarks.gpu import setting
from benchmarks.gpu.session import Row, Session, Task
from benchmarks.gpu.steps import views_by_hand
from benchmarks.gpu.timing import Contest, Taken, milliseconds, recorded, wall
from benchmarks.harness import ratios, spread

# Net, classes, images, their size, size of the views, views, batch, and what is aimed at; in order of importance.
Case = tuple[str, int, int, int, int, int, int, float]
CASES: tuple[Case, ...] = (
    ("wrn-28-2", 100, 50_000, 32, 32, 12, 2000, 0.85),
    ("wrn-28-10", 100, 50_000, 32, 32, 2, 500, 0.95),
    # So many views because a dump asks the teacher once in float32, too, which takes as long as 500 of them.
    ("torchvision:resnet50", 1000, 2_000, 256, 224, 10, 250, 0.95),
    ("wrn-28-2", 1000, 50_000, 32, 32, 6, 2000, 0.85),
    ("wrn-28-10", 1000, 50_000, 32, 32, 2, 500, 0.95),
)
BY_HAND = ("wrn-28-2", "convnet-16")
SMALL: tuple[Case, ...] = (("convnet-16", 100, 60, 32, 32, 2, 30, 0.85),)


def tasks(session: Session) -> list[Task]:
    """Compare dumps with bare forward passes."""
    return [
        Task(
            {
                "part": "dumps",
                "net": case[0],
                "classes": case[1],
                "batch": case[6],
                "entries": case[2] * case[5],
            },
            25 if case[3] != case[4] else 20,
            partial(_compare, session, case),
        )
        for case in (SMALL if session.quick or not session.cuda else CASES)
    ]


def _compare(session: Session, case: Case) -> Contest:
    name, classes, count, stored, size, num_views, batch, aim = case
    device = session.device
    data = setting.noise(count, classes, stored)
    asked = setting.teacher(name, device, classes, size)
    same = size == stored
    how = setting.settings(num_views, batch, *(() if same else ("rrc-flip", size)))
    passes = count * num_views // batch
    starts: dict[float, float] = {}  # of a dump's milliseconds, those before its first shard

    def whole(how: DumpSettings = how) -> float:
        shards = ShardTimer(time.perf_counter)
        with TemporaryDirectory() as folder:
            out = Path(folder) / "a.zarr"
            found = wall(
                lambda: dump(asked, data, setting.SPEC, out, how, device=device, progress=shards), device
            )
        starts[found] = found - shards.seconds * 1e3
        return found

    replay = _bare(asked, batch, size, device)

    def bare() -> float:
        return milliseconds(lambda: [replay() for _ in range(passes)], device)

    variants = {"dump": whole, "bare": bare}
    if name in BY_HAND:
        ask = by_hand.online(asked.model, kind=device.type, amp=session.cuda)
        variants["by hand"] = partial(_by_hand, data, ask, num_views, batch, device)
    whole(replace(how, num_views=1))  # triton compiles, and cuDNN selects kernels
    return Contest(variants, partial(_rows, starts, aim))


def _bare(asked: Teacher, batch: int, size: int, device: torch.device) -> Any:
    """Return what repeats the forward pass on a batch that is there already."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    images = torch.randn(batch, 3, size, size, device=device).to(
        dtype=dtype, memory_format=torch.channels_last
    )

    @torch.no_grad()
    def forward() -> None:
        # A cache of cast weights would belong to another graph.
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            asked.model(images)

    return recorded(forward, device)


def _by_hand(data: ImageSet, ask: by_hand.Answers, num_views: int, batch: int, device: torch.device) -> float:
    """Return milliseconds of a dump to memory and to one file, from images on the host on."""

    def work() -> None:
        views = views_by_hand(data, device)
        logits = torch.stack([by_hand.dump(views, ask, view, batch=batch) for view in range(num_views)])
        with TemporaryDirectory() as folder:
            torch.save(logits.cpu(), Path(folder) / "logits.pt")

    return wall(work, device)


def _rows(starts: dict[float, float], aim: float, taken: Taken) -> list[Row]:
    """Return one row: seconds of each, the start, and the bare pass divided by the dump, with and without its start."""
    ahead = [starts[whole] for whole in taken["dump"]]
    after = [whole - start for whole, start in zip(taken["dump"], ahead, strict=True)]
    row: Row = {
        "bare / dump": ratios(taken["bare"], taken["dump"]),
        "aim": f"bare / dump >= {aim}",
        "bare / dump after its start": ratios(taken["bare"], after),
        "start_seconds": spread([ms / 1e3 for ms in ahead]),
    }
    return [row | {f"{name}_seconds": spread([ms / 1e3 for ms in values]) for name, values in taken.items()}]
