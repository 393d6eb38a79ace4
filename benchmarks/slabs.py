"""What does one slab cost to get from disk in each storage profile, against mapping a raw file of it?

50,000 entries of 100 classes, root4, from the page cache, copied into memory: `Cache.slab` of the profiles default (zstd,
crc32c, sha256 of every file) and compact (unfolded, too), and of mmap (checked when it was first mapped), beside np.memmap.
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
            # Each beside the raw file alone: what decodes leaves a processor's cache in another state to the next.
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
