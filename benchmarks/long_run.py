"""Does the memory of a training stay flat over 200 epochs, wherever its images and soft targets are?

A small net learns from a cache of resized crops of 96 pictures: from decoded pixels in memory, from the folder itself, and from packs of both kinds,
read into memory or picture by picture; soft targets in memory or on disk. Each is a training of its own process, with an evaluation after every
epoch and a saved state every second. Memory is what the process holds after each epoch: the median of the epochs from 20 to 40 and of the last 20.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from bancache.cache.reader import open_cache
from bancache.dumping import DumpSettings
from bancache.sources.pack_source import Shape
from bancache.sources.pack_writer import pack
from bancache.sources.spec import DataSpec
from bancache.system.progress import Silent
from bancache.system.signals import Interrupt
from bancache.training import Recipe, TrainerOptions, run_for_cache, train
from bancache.views import ViewSpace
from benchmarks.harness import arguments, compared, report
from benchmarks.memory import Memory
from benchmarks.synthetic import CPU, NORMAL, Table, cache_of, teacher_of

EPOCHS, SIZE, CLASSES, PICTURES = 200, 16, 4, 96
# Where images are: their source, whether they fit in memory; and where soft targets are.
VARIANTS = {
    "images in memory": ("folder:photos", True, "cpu"),
    "images in memory, targets on disk": ("folder:photos", True, "disk"),
    "folder, streamed": ("folder:photos", False, "cpu"),
    "pack of pixels, in memory": ("pack:pixels.pack", True, "cpu"),
    "pack of pixels, streamed": ("pack:pixels.pack", False, "cpu"),
    "encoded pack, in memory": ("pack:encoded.pack", True, "cpu"),
    "encoded pack, streamed": ("pack:encoded.pack", False, "cpu"),
    "encoded pack, streamed, targets on disk": ("pack:encoded.pack", False, "disk"),
}


class Held(Silent):
    """Notes what this process holds after each epoch."""

    def __init__(self) -> None:
        self.bytes: list[int] = []

    @contextmanager
    def stage(self, title: str, *, total: int, unit: str, done: int = 0) -> Iterator[Held]:
        """Give the stage of a training."""
        yield self

    def advance(self, amount: int) -> None:
        """Do nothing."""

    def log(self, text: str) -> None:
        """Look after an epoch."""
        if "epoch " in text:
            self.bytes.append(Memory.held())


def prepare() -> None:
    """Write pictures, packs and the cache of a teacher here."""
    rng = np.random.default_rng(0)
    for split, count in (("train", PICTURES), ("test", 16)):
        for number in range(count):
            place = Path("photos") / split / str(number % CLASSES)
            place.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (*rng.integers(24, 40, 2), 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
    for kind in ("pixels", "encoded"):
        pack("folder:photos", Path(f"{kind}.pack"), Shape(kind), progress=Silent(), interrupt=Interrupt())
    data = DataSpec("folder:photos").open("train")
    settings = DumpSettings(ViewSpace.parse("rrc-flip"), 4, "root4", 32, NORMAL, size=(SIZE, SIZE))
    cache_of(teacher_of(Table(CLASSES), "table"), data, Path("gen0.zarr"), settings)


def trained(name: str, epochs: int) -> list[int]:
    """Train, and return what this process held after each epoch."""
    torch.set_num_threads(1)
    source, fits, placement = VARIANTS[name]
    free, spec, cache, held = 1 << 40 if fits else 0, DataSpec(source), open_cache(Path("gen0.zarr")), Held()
    with (
        mock.patch("bancache.sources.pack.free_on_host", return_value=free),
        mock.patch("bancache.sources.decoded.free_on_host", return_value=free),
    ):
        data, test = spec.open("train"), spec.open("test")
    net = {"name": "convnet-2", "classes": CLASSES, "channels": 3, "image_size": [SIZE, SIZE]}
    recipe = Recipe(epochs=epochs, batch_size=32, lr=0.01, schedule="cosine", weight_decay=0.0)
    options = TrainerOptions(f"{os.getpid()}.pt", CPU, save_every=1.0, placement=placement)  # type: ignore[arg-type]
    train(run_for_cache(net, recipe, 0, spec, data, cache), data, test, options, cache=cache, progress=held)
    return held.bytes


def rows(epochs: int, names: list[str]) -> list[dict[str, Any]]:
    """Train in every way, and compare what was held."""
    found, here = [], Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here / 'cli'}"}
    with tempfile.TemporaryDirectory() as folder:
        environment["XDG_CACHE_HOME"] = folder
        argv = [sys.executable, "-m", "benchmarks.long_run", "--epochs", str(epochs), "--one"]
        for name in ["", *names]:
            done = subprocess.run(
                [*argv, name], check=True, capture_output=True, text=True, cwd=folder, env=environment
            )
            if name:
                held = json.loads(done.stdout.splitlines()[-1])
                early, late = (
                    statistics.median(part)
                    for part in (held[epochs // 10 : epochs // 5], held[-epochs // 10 :])
                )
                more = {
                    "megabytes": late / 1e6,
                    "grown_kilobytes_an_epoch": (late - early) / 1e3 / (epochs * 0.8),
                }
                found.append(
                    compared(f"memory, last epochs / first: {name}", [late], [early], "<= 1.01", **more)
                )
    return found


def more(parser: ArgumentParser) -> None:
    """Add what this file calls itself with."""
    parser.add_argument("--one", help="train in one of the ways; an empty name makes what all of them need")
    parser.add_argument("--epochs", type=int, default=EPOCHS)


def main() -> None:
    """Measure and print."""
    options = arguments("long_run", str(__doc__), more)
    if options.one == "":
        prepare()
    elif options.one:
        print(json.dumps(trained(options.one, options.epochs)))
    elif options.quick:
        report("long_run", rows(20, list(VARIANTS)[:1]), options)
    else:
        report("long_run", rows(options.epochs, list(VARIANTS)), options)


if __name__ == "__main__":
    main()
