"""What do pictures cost that are not in memory?

`pixels`: decoded pictures whose shorter side has 256 pixels are read from a file, and a view of `rrc-flip` of 224 x 224 pixels is made of each:
images in a second of one core. `encoded`: the same of JPEG files, beside torchvision's transforms behind a DataLoader without workers, and behind litdata's
loader where that is installed. All decode by Pillow. `memory`: what opening a pack of 10,000, 1,000,000 and 1,281,167 pictures costs, and what a process holds after some steps through
it; the packs are sparse files of black pictures, and the last one has as many as ImageNet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from bancache.loader import LoaderOptions
from bancache.loader.open import labels_loader
from bancache.sources import open_source
from bancache.sources.content import Known, Statistics
from bancache.sources.encoded import EncodedImages, Facts
from bancache.sources.image_set import ImageSet
from bancache.system.stored import StoredImages
from bancache.views import ViewSpace
from benchmarks import photographs
from benchmarks.harness import arguments, compared, interleave, report, spread
from benchmarks.memory import Memory
from benchmarks.sparse_pack import sparse_pack
from benchmarks.synthetic import NORMAL

HEIGHT, WIDTH, SIZE, BATCH = 256, 341, 224, 64
SPACE = ViewSpace.parse("rrc-flip")
FEW, MANY, IMAGENET = 10_000, 1_000_000, 1_281_167


class PixelFile(StoredImages):
    """Pictures of one size in a file, one after another."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self.channels = path, 3
        self.heights, self.widths = np.full(count, HEIGHT, np.int32), np.full(count, WIDTH, np.int32)
        self._file = os.open(path, os.O_RDONLY)

    def read(self, sample: int) -> NDArray[np.uint8]:
        """Read one picture."""
        picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        assert os.preadv(self._file, [picture.reshape(-1).data], sample * picture.nbytes) == picture.nbytes
        return picture

    def first(self, n: int) -> StoredImages:
        """Return the first pictures."""
        return PixelFile(self._path, n)

    def close(self) -> None:
        """Leave the file open: this process ends soon."""


def transform() -> Any:
    """Return torchvision's transforms of a decoded picture."""
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.RandomResizedCrop(SIZE),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([part / 255 for part in NORMAL.mean], [part / 255 for part in NORMAL.std]),
        ]
    )


class Files(Dataset[torch.Tensor]):
    """JPEGs, each decoded and changed by torchvision when it is asked for."""

    def __init__(self, files: list[Path]) -> None:
        self._files, self._transform = files, transform()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> torch.Tensor:
        changed: torch.Tensor = self._transform(photographs._decoded(self._files[index].read_bytes()))
        return changed


def litdata_loader(files: list[Path], batch: int, folder: Path) -> Any:
    """Return litdata's loader of the same files in its chunks of 64 MB, with torchvision's transforms; None where it is not installed."""
    try:
        from litdata import StreamingDataLoader, StreamingDataset
        from litdata.streaming.writer import BinaryWriter
    except ImportError:
        return None
    writer = BinaryWriter(str(folder), chunk_bytes="64MB")
    for number, file in enumerate(files):
        writer[number] = {"jpeg": file.read_bytes()}
    writer.done()
    writer.merge()
    change = transform()

    class Chunks(StreamingDataset):  # type: ignore[misc, valid-type]
        """Decodes a picture when it is asked for."""

        def __getitem__(self, index: Any) -> torch.Tensor:
            changed: torch.Tensor = change(photographs._decoded(super().__getitem__(index)["jpeg"]))
            return changed

    chunks = Chunks(str(folder), shuffle=True, drop_last=True)
    return StreamingDataLoader(chunks, batch_size=batch, num_workers=0)


def loader_of(images: StoredImages, batch: int) -> Any:
    """Return a loader of labels and views."""
    known = Known("0" * 64, Statistics(NORMAL.mean, NORMAL.std))
    labels = np.zeros(len(images), np.int64)
    data = ImageSet(images, labels, ("a",), "streamed", "train", known)
    options = LoaderOptions(batch_size=min(batch, len(images)))
    return labels_loader(data, SPACE, NORMAL, 50, options, size=(SIZE, SIZE))


def pixels(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Return the line of pictures that are decoded already."""
    count = 8 if quick else 1024
    path = folder / "pixels"
    np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8).tofile(path)
    loader, epochs = loader_of(PixelFile(path, count), BATCH), iter(range(1 << 30))

    def epoch() -> None:
        for _ in loader.epoch(next(epochs)):
            pass

    seconds = interleave({"pixels": epoch}, rounds=2 if quick else 15)["pixels"]
    views = loader.steps * loader.batch_size
    return [
        {"what": "pixels", "images_a_second": spread([views / each for each in seconds]), "target": ">= 3000"}
    ]


def encoded(folder: Path, *, given: Path | None, quick: bool) -> list[dict[str, Any]]:
    """Return the lines of JPEGs, ours and torchvision's."""
    files = sorted(given.rglob("*.jpg"))[: 8 if quick else None] if given else []
    kind = "photographs of all sizes"
    if not files:
        kind = "500 x 375"
        for seed in range(8 if quick else 128):
            (folder / f"{seed}.jpg").write_bytes(photographs._encoded(seed))
        files = sorted(folder.glob("*.jpg"))
    sizes = [photographs._decoded(file.read_bytes()).size for file in files]
    widths, heights = np.array(sizes, np.int32).T
    facts = Facts(
        np.arange(len(files)), heights.copy(), widths.copy(), 3, None, np.zeros(len(files), np.uint64)
    )
    images = EncodedImages(lambda index: (str(files[index]), files[index]), facts, None)
    batch = 4 if quick else 32
    loader, epochs = loader_of(images, batch), iter(range(1 << 30))
    torchvision = DataLoader(Files(files), batch_size=batch, shuffle=True, drop_last=True)

    def ours() -> None:
        for _ in loader.epoch(next(epochs)):
            pass

    ways: dict[str, Callable[[], object]] = {"ours": ours, "torchvision": lambda: list(torchvision)}
    with tempfile.TemporaryDirectory() as chunks:
        if (litdata := litdata_loader(files, batch, Path(chunks))) is not None:
            ways["litdata"] = lambda: list(litdata)
        taken = interleave(ways, rounds=2 if quick else 15)
    views = loader.steps * loader.batch_size
    rates = [
        {
            "what": f"encoded, {way}",
            "pictures": kind,
            "images_a_second": spread([views / each for each in seconds]),
        }
        for way, seconds in taken.items()
    ]
    return [
        *rates,
        *(
            compared(f"{way} / ours", taken[way], taken["ours"], ">= 1.5", pictures=kind)
            for way in taken
            if way != "ours"
        ),
    ]


def held(path: Path, steps: int) -> dict[str, float]:
    """Return what opening a pack costs, and the most bytes that this process held after some steps through it."""
    before, began = Memory(), time.perf_counter()
    # So that both are read picture by picture.
    with mock.patch("bancache.sources.pack.free_on_host", return_value=0):
        data = open_source(f"pack:{path}", "train")
    opened = {"open_seconds": time.perf_counter() - began, "open_megabytes": before.risen() / 1e6}
    assert isinstance(data.images, StoredImages)
    began_all = Memory()
    loader = labels_loader(data, SPACE, NORMAL, 50, LoaderOptions(batch_size=BATCH), size=(SIZE, SIZE))
    for _, _ in zip(range(steps), loader.epoch(0), strict=False):
        pass
    return {**opened, "megabytes": began_all.peak() / 1e6}


def memory(*, quick: bool) -> list[dict[str, Any]]:
    """Return the lines of memory, each figure from a process of its own."""
    rows: list[dict[str, Any]] = []
    found: list[float] = []
    if quick:  # a process that imports torch takes longer than all the rest
        return rows
    for count in (FEW, MANY, IMAGENET):
        with tempfile.TemporaryDirectory() as folder:
            path = sparse_pack(Path(folder) / "sparse.pack", count, height=HEIGHT, width=WIDTH)
            argv = [sys.executable, "-m", "benchmarks.streaming", "--held", str(path)]
            done = subprocess.run(argv, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        found.append(row["megabytes"])
        rows.append({"what": "memory", "pictures": count, **row})
    return [*rows, compared(f"memory of {MANY:,} / {FEW:,}", found[1:2], found[:1], "<= 1.05")]


def more(parser: ArgumentParser) -> None:
    """Add what this file calls itself with."""
    parser.add_argument("--held", type=Path, help="print what a process holds that reads this pack")
    parser.add_argument("--photographs", type=Path, help="a folder of JPEGs; by default some are made")
    parser.add_argument(
        "--site", default="", help="a folder of installed packages, for litdata; used after those here"
    )
    parser.add_argument("--steps", type=int, default=40)


def main() -> None:
    """Measure and print."""
    options = arguments("streaming", str(__doc__), more)
    sys.path += [options.site] if options.site else []
    if options.held:
        print(json.dumps(held(options.held, options.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = pixels(Path(folder), quick=options.quick)
    with tempfile.TemporaryDirectory() as folder:
        rows += encoded(Path(folder), given=options.photographs, quick=options.quick)
    report("streaming", [*rows, *memory(quick=options.quick)], options)


if __name__ == "__main__":
    main()
