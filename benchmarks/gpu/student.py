"""How much of an epoch is not the step? Epochs from each residence against the same captured step on one batch.

G1: everything on the GPU, at least 0.99 of the static step's speed. G2: answers in page-locked memory or streamed from
disk, at least 0.98, over epochs that each need another view index. The static step has its images, labels and
float32 probabilities in place and reads them again and again. An epoch's time includes its beginning: addresses
and learning rates on their way to the device, the next view index's arrival. A third variant starts every operation
from the host, as without a graph.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bancache.cache.reader import Cache
from bancache.loader import Batch
from bancache.loader.loader import CodedTargets
from bancache.sources.image_set import ImageSet
from bancache.training.options import Placement
from benchmarks.gpu import setting
from benchmarks.gpu.setting import Student, student
from benchmarks.gpu.timing import Call, Options, interleave, options, recorded, report
from benchmarks.harness import ratios, spread

# WRN-16-2 at 1024 computes about what airbench's net does (0.6 and 0.7 GFLOP an image); ResNet-20 has no target:
# its step is so short that launches may show.
NETS: tuple[tuple[str, int, float | None], ...] = (
    ("wrn-16-2", 1024, 0.99),
    ("wrn-16-4", 512, 0.99),
    ("resnet-20", 512, None),
)
STREAMED: tuple[tuple[str, int, float | None], ...] = (("wrn-16-4", 512, 0.98),)
SMALL: tuple[tuple[str, int, float | None], ...] = (("resnet-8", 32, None),)
NUM_VIEWS, REPLAYS, ROUNDS = 6, 200, 5


def main() -> None:
    """Measure and print."""
    given = options("student", str(__doc__))
    data = setting.noise(96 if given.quick else 50_000)
    with TemporaryDirectory() as folder:
        cache = setting.small_cache(data, Path(folder), 2 if given.quick else NUM_VIEWS, given)
        report("student", measure(cache, data, given), given)


def measure(cache: Cache, data: ImageSet, given: Options) -> list[dict[str, Any]]:
    """Return the rows of both questions."""
    if not given.cuda:
        print("student: no CUDA device, so nothing is captured, and device and pinned memory are skipped")
    near: Placement = "device" if given.cuda else "cpu"
    asked = [("G1", near, *net) for net in (SMALL if given.quick else NETS)]
    far: tuple[Placement, ...] = ("pinned", "disk") if given.cuda else ("disk",)
    asked += [("G2", where, *net) for where in far for net in (SMALL if given.quick else STREAMED)]
    rows = []
    for goal, where, name, batch, target in asked:
        one = student(name, batch, cache, data, where, given)
        found = compare(one, cache, given)
        rows.append(
            {"goal": goal, "net": name, "batch": batch, "residence": where, "target": target, **found}
        )
    return rows


def compare(one: Student, cache: Cache, given: Options) -> dict[str, Any]:
    """Return the static step against epochs, and against epochs without a graph."""
    epochs = 1 if given.quick else max(3, -(-REPLAYS // one.steps))
    begun = 0

    def run_epochs(replay: Call, count: int) -> None:
        nonlocal begun
        for _ in range(count):
            one.static.fill(begun, one.rates, start=0)
            begun += 1
            for _ in range(one.steps):
                replay()

    one.static.fill(0, one.rates, start=0)
    still = static_batch(one, cache)
    targets = one.static._loader.targets
    assert isinstance(targets, CodedTargets)
    targets.hold()
    replay, again = recorded(one.static, given), recorded(lambda: one.step(still), given)
    one.static.forget()

    def stand_still() -> None:
        for _ in range(epochs * one.steps):
            again()

    variants: dict[str, Call] = {"static": stand_still, "epochs": lambda: run_epochs(replay, epochs)}
    if given.cuda:
        variants["eager"] = lambda: run_epochs(one.static, epochs)
    taken = interleave(variants, given, rounds=1 if given.quick else ROUNDS)
    steps = epochs * one.steps
    rows: dict[str, Any] = {
        f"{name}_ms_a_step": spread([ms / steps for ms in taken[name]]) for name in variants
    }
    rows |= {
        f"static / {name}": ratios(taken["static"], taken[name]) for name in variants if name != "static"
    }
    return rows | {"steps": steps, "epochs": epochs}


def static_batch(one: Student, cache: Cache) -> Batch:
    """Return an epoch's first batch with float32 probabilities, all in memory that stays."""
    loader = one.static._loader
    addresses, some = loader.with_rows(loader.begin(0)), slice(0, loader.batch_size)
    assert addresses.rows is not None
    parts = (torch.from_numpy(part[some]) for part in (addresses.samples, addresses.rows))
    samples, views = (part.to(loader.device) for part in parts)
    batch = loader.batch(samples, views)
    assert loader.targets is not None
    targets = loader.targets.probabilities(samples, batch.images)
    return replace(batch, targets=torch.as_tensor(targets), codes=None)


if __name__ == "__main__":
    main()
