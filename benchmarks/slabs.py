"""What does it cost to read one view's targets in each storage profile, beside mapping a raw file of them?

50,000 samples, 100 classes, root4, from the page cache, copied into memory: `Cache.read_view` of the profiles default (zstd,
crc32c, sha256 of every file), compact (delta coded as well) and mmap (checked when it is first mapped), beside np.memmap.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bancache.cache.profile import PROFILES
from benchmarks.harness import arguments, compared, interleave, report, spread
from benchmarks.synthetic import Table, cache_of, image_set, settings, teacher_of

TARGETS = {"default": "<= 14", "compact": "none", "mmap": "<= 1.2"}


def main() -> None:
    """Measure and print."""
    options = arguments("slabs", str(__doc__))
    count, rounds = (2_000, 2) if options.quick else (50_000, 31)
    data, teacher = image_set(count, size=8), teacher_of(Table(100), "table")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        raw, shape = Path(name) / "raw", (count, 100)
        for profile in PROFILES:
            chosen = replace(settings(num_views=2), profile=profile)
            cache = cache_of(teacher, data, Path(name) / f"{profile}.zarr", chosen)
            raw.write_bytes(cache.read_view(1)["q"].tobytes())
            # Each profile beside the raw file alone: decoding changes what the CPU caches hold for the next variant.
            seconds = interleave(
                {
                    "memmap": lambda: np.array(np.memmap(raw, np.uint8, "r", shape=shape)),
                    profile: lambda cache=cache: np.array(cache.read_view(1)["q"]),
                },
                rounds=rounds,
            )
            rows += [
                {
                    "what": f"{what}, in turns with {profile}",
                    "microseconds": spread([v * 1e6 for v in values]),
                }
                for what, values in seconds.items()
            ]
            ratio = f"{profile} profile / memmap"
            rows.append(compared(ratio, seconds[profile], seconds["memmap"], TARGETS[profile]))
    report("slabs", rows, options)


if __name__ == "__main__":
    main()
