"""Do peak memory and time per pair stay flat as a cache grows from ten thousand samples to four million?

One view of N samples, 100 classes, images of 4 x 4 pixels and a teacher that looks its logits up, so that bancache's own cost
remains: a dump, then an epoch of the loader, each size in its own process. Memory is the peak above the memory before, without
the two parts that must grow with N: the padded copies of the images, and the current view's targets.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bancache.loader import LoaderOptions
from bancache.loader.cache_targets import decoded_bytes
from bancache.loader.open import cached_loader
from bancache.views.factory import resident_bytes
from benchmarks import large_cache
from benchmarks.harness import arguments, report
from benchmarks.memory import Memory
from benchmarks.synthetic import CPU, Table, cache_of, image_set, settings, teacher_of

BATCH, SIZE = 512, 4


def measure(count: int) -> dict[str, Any]:
    """Dump and read ``count`` samples in this process."""
    torch.set_num_threads(1)
    data, teacher = image_set(count, size=SIZE), teacher_of(Table(100), "table")
    data.fingerprint  # noqa: B018 (known before anything is timed)
    asked = settings(batch_size=BATCH)
    asked = type(asked)(asked.space.parse("crop1-flip"), 1, "root4", BATCH, asked.normalization)
    padded = resident_bytes(data.images, asked.space, CPU)
    with tempfile.TemporaryDirectory() as folder:
        memory, began = Memory(), time.process_time()
        cache = cache_of(teacher, data, Path(folder) / "c.zarr", asked)
        dumped, dump_rose = time.process_time() - began, memory.risen()
        size = cache.bytes
        memory = Memory()
        loader = cached_loader(cache, data, LoaderOptions(batch_size=BATCH))
        began = time.process_time()
        for _ in loader.epoch(0):
            pass
        loaded, load_rose = time.process_time() - began, memory.risen()
    return {
        "samples": count,
        "dump_microseconds_an_entry": dumped / count * 1e6,
        "dump_extra_megabytes": (dump_rose - padded) / 1e6,
        "load_microseconds_an_entry": loaded / count * 1e6,
        "load_extra_megabytes": (load_rose - padded - decoded_bytes(cache)) / 1e6,
        "bytes_an_entry": size / count,
    }


def _caches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--caches",
        action="store_true",
        help="measure caches of ImageNet's size instead (benchmarks/large_cache.py)",
    )


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]))))
        return
    options = arguments("scale", str(__doc__), _caches)
    if options.caches:
        report("large_cache", large_cache.rows(quick=options.quick), options)
        return
    sizes = (500, 1_000) if options.quick else (10_000, 100_000, 1_000_000, 4_000_000)
    rows = []
    for count in sizes:
        command = [sys.executable, "-m", "benchmarks.scale", "--one", str(count)]
        rows.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    first, last = rows[0], rows[-1]
    growth = last["dump_microseconds_an_entry"] / first["dump_microseconds_an_entry"]
    rows.append({"ratio": "dump, time per pair, largest / smallest", "value": growth, "target": "<= 1.1"})
    growth = last["load_microseconds_an_entry"] / first["load_microseconds_an_entry"]
    rows.append({"ratio": "loader, time per pair, largest / smallest", "value": growth, "target": "<= 1.1"})
    report("scale", rows, options)


if __name__ == "__main__":
    main()
