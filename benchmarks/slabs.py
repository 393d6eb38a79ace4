"""What does one slab cost to read from disk, checked and decompressed, against mapping a raw file of it?

50,000 entries of 100 classes, root4, from the page cache: `Cache.slab` of the default profile (zstd, crc32c, sha256
of every file) and of the profile `mmap`, where this version has it, beside np.memmap copied into memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from bancache.dump import DumpSettings
from benchmarks.harness import arguments, compared, interleave, report, spread
from benchmarks.synthetic import Table, cache_of, image_set, settings, teacher_of


def main() -> None:
    """Measure and print."""
    options = arguments("slabs", str(__doc__))
    count, rounds = (2_000, 2) if options.quick else (50_000, 15)
    data, teacher = image_set(count, size=8), teacher_of(Table(100), "table")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = cache_of(teacher, data, folder / "default.zarr", settings())
        slab = cache.slab(0)["q"]
        raw = folder / "raw"
        raw.write_bytes(slab.tobytes())
        timed: dict[str, Callable[[], Any]] = {
            "memmap": lambda: np.array(np.memmap(raw, np.uint8, "r", shape=slab.shape)),
            "default": lambda: cache.slab(0),
        }
        profiled = "profile" in {field.name for field in fields(DumpSettings)}
        if profiled:
            mapped = cache_of(
                teacher,
                data,
                folder / "mmap.zarr",
                replace(settings(), profile="mmap"),  # type: ignore[call-arg]
            )
            timed["mmap"] = lambda: {n: np.array(part) for n, part in mapped.slab(0).items()}
        seconds = interleave(timed, rounds=rounds)
    rows += [{"what": n, "microseconds": spread([v * 1e6 for v in vs])} for n, vs in seconds.items()]
    rows.append(compared("default profile / memmap", seconds["default"], seconds["memmap"], "<= 14"))
    if profiled:
        rows.append(compared("mmap profile / memmap", seconds["mmap"], seconds["memmap"], "<= 1.2"))
    else:
        rows.append({"what": "mmap", "skipped": "this version has no profile 'mmap'"})
    report("slabs", rows, options)


if __name__ == "__main__":
    main()
