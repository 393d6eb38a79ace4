"""What does a cache cost behind torch's own DataLoader, beside the loader, and beside transforms without a teacher?

Epochs of color images of 32 x 32 pixels, 100 classes, batches of 128, no workers; each epoch shows another view, so the time
to read its targets is included. The transforms are torchvision's crop and flip of images in RAM; they give no soft targets,
which a training loop would still need. "items" is ``DataLoader(dataset, batch_size=128)``, "batches" the same with a batch
sampler.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from bancache import DataSpec, ViewDataset, ViewSpace, open_cache, open_loader
from bancache.dumping import DumpSettings, dump
from bancache.models import build_model
from bancache.models.teacher import Teacher, arguments_of
from benchmarks.harness import arguments, interleave, ratios, report, spread
from benchmarks.synthetic import NORMAL, noise_file
from benchmarks.views import InMemory

BATCH = 128
CPU = torch.device("cpu")


def make_cache(folder: Path, count: int) -> Path:
    """Dump two views of random images; targets of an untrained model take as long as any."""
    spec = noise_file(folder, count)
    architecture = {"name": "convnet-4", "classes": 100, "channels": 3, "image_size": [32, 32]}
    teacher = Teacher(build_model(**arguments_of(architecture)).eval(), "0" * 64, architecture)
    settings = DumpSettings(ViewSpace.parse("crop4-flip"), 2, "root4", 256, NORMAL)
    dump(teacher, spec.open("train"), spec, folder / "random.zarr", settings, device=CPU)
    return folder / "random.zarr"


def variants_of(cache: Path) -> dict[str, Callable[[], None]]:
    """Return functions that each go through the next epoch, of the same number of views."""
    dataset, loader = ViewDataset(cache), open_loader(cache, batch_size=BATCH)
    data = DataSpec.from_dict(open_cache(cache).manifest.dataset["spec"]).open("train")
    sampler = BatchSampler(RandomSampler(dataset), BATCH, drop_last=True)
    feeds: dict[str, Iterable[object]] = {
        "items": DataLoader(dataset, BATCH, shuffle=True, drop_last=True),
        "batches": DataLoader(dataset, sampler=sampler, batch_size=None),
        "transforms": DataLoader(InMemory(data), BATCH, shuffle=True, drop_last=True),
    }
    epochs = {name: itertools.count() for name in (*feeds, "loader")}

    def run(name: str) -> None:
        epoch = next(epochs[name])
        dataset.set_epoch(epoch)
        for _ in loader.epoch(epoch) if name == "loader" else feeds[name]:
            pass

    return {name: functools.partial(run, name) for name in epochs}


def main() -> None:
    """Measure and print."""
    options = arguments("dataset", str(__doc__))
    count, rounds = (256, 2) if options.quick else (10_000, 11)
    with tempfile.TemporaryDirectory() as folder:
        seconds = interleave(variants_of(make_cache(Path(folder), count)), rounds=rounds)
    shown = count // BATCH * BATCH
    rows = [
        {"what": name, "microseconds_a_view": spread([value / shown * 1e6 for value in values])}
        for name, values in seconds.items()
    ]
    pairs = (("transforms", "items"), ("transforms", "batches"), ("items", "loader"), ("batches", "loader"))
    rows += [{"ratio": f"{a} / {b}", "value": ratios(seconds[a], seconds[b])} for a, b in pairs]
    report("dataset", rows, options)


if __name__ == "__main__":
    main()
