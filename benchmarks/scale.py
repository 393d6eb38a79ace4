"""Do peak memory and time an entry stay flat as a cache grows from ten thousand samples to a million?

One slot of N samples, 100 classes, images of 4 x 4 pixels and a teacher that looks its answers up, so that what is
left is ours: a dump, then an epoch of the loader, each size in a process of its own. Memory is the peak of the process
above what it had with the images and their padded copies in it, which grow with N by themselves.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bancache.loader.open import cached_loader
from benchmarks.harness import arguments, report
from benchmarks.synthetic import CPU, Table, cache_of, image_set, settings, teacher_of

BATCH, SIZE = 512, 4


def peak_bytes() -> int:
    """Return the most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(count: int) -> dict[str, Any]:
    """Dump and read ``count`` samples in this process."""
    torch.set_num_threads(1)
    data, teacher = image_set(count, size=SIZE), teacher_of(Table(100), "table")
    data.fingerprint  # noqa: B018 (known before anything is timed)
    resident = data.images.nbytes + 2 * data.images.nbytes * (SIZE + 2) ** 2 // SIZE**2
    asked = settings(batch_size=BATCH)
    asked = type(asked)(asked.space.parse("crop1-flip"), 1, "root4", BATCH, asked.normalisation)
    before = peak_bytes()
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        cache = cache_of(teacher, data, Path(folder) / "c.zarr", asked)
        dumped, after_dump = time.process_time() - began, peak_bytes()
        size = cache.bytes
        loader = cached_loader(cache, data, batch_size=BATCH, seed=0, device=CPU)
        began = time.process_time()
        for _ in loader.epoch(0):
            pass
        loaded = time.process_time() - began
    return {
        "samples": count,
        "dump_microseconds_an_entry": dumped / count * 1e6,
        "dump_extra_megabytes": max(0, after_dump - before - resident) / 1e6,
        "load_microseconds_an_entry": loaded / count * 1e6,
        "load_extra_megabytes_a_million": max(0, peak_bytes() - after_dump) / count,
        "bytes_an_entry": size / count,
    }


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]))))
        return
    options = arguments("scale", str(__doc__))
    sizes = (2_000, 4_000) if options.quick else (10_000, 100_000, 1_000_000)
    rows = []
    for count in sizes:
        command = [sys.executable, "-m", "benchmarks.scale", "--one", str(count)]
        rows.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    first, last = rows[0], rows[-1]
    growth = last["dump_microseconds_an_entry"] / first["dump_microseconds_an_entry"]
    rows.append({"ratio": "dump, time an entry, largest / smallest", "value": growth, "target": "<= 1.1"})
    growth = last["load_microseconds_an_entry"] / first["load_microseconds_an_entry"]
    rows.append({"ratio": "loader, time an entry, largest / smallest", "value": growth, "target": "<= 1.1"})
    report("scale", rows, options)


if __name__ == "__main__":
    main()
