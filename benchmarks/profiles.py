"""How much longer than np.memmap of a plain file does it take to get a slot, by storage profile?

The codes are made up: answers to a sample's views that differ a little. Their size on disk says nothing about a
teacher's; the time to read them is that of any codes of that size. Files are in the page cache, and what is
read is copied once, so that a map pays for its pages, too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache import Manifest
from bancache.cache.opening import open_writer
from bancache.cache.profile import PROFILES
from bancache.cache.reader import Cache, open_cache
from bancache.fields import FieldSpec
from benchmarks.harness import arguments, interleave, ratios, report, spread

SLOTS, CLASSES = 2, 100


def codes(samples: int) -> NDArray[np.uint8]:
    """Return root-4 codes of made-up answers, (slots, samples, classes)."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((samples, CLASSES), np.float32) * 4
    answers = (base + rng.standard_normal((samples, CLASSES), np.float32) for _ in range(SLOTS))
    return np.stack(
        [np.rint(255 * np.exp((z - z.max(1, keepdims=True)) / 4)).astype(np.uint8) for z in answers]
    )


def write(path: Path, profile: str, entries: NDArray[np.uint8]) -> Cache:
    """Keep the codes in a profile."""
    promise = Manifest(
        samples=entries.shape[1],
        slots=SLOTS,
        classes=CLASSES,
        fields=(FieldSpec("q", "uint8", (CLASSES,), ("class",)),),
        encoding={"name": "root4"},
        view_space={},
        pixels={},
        dataset={"fingerprint": "0" * 64},
        teacher={"fingerprint": "0" * 64},
        compute={},
        created_with={},
        profile=profile,
    )
    with open_writer(path, promise) as writer:
        assert writer is not None
        for region in writer.pending():
            writer.write_region(region, {"q": entries[region.slot, region.start : region.stop]}, {})
        writer.finish(lambda facts: {})
    return open_cache(path)


def measure(folder: Path, samples: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each profile: seconds to get slot 1, and their ratio to a plain file's."""
    entries = codes(samples)
    plain = folder / "plain.bin"
    entries[1].tofile(plain)
    caches = {profile: write(folder / f"{profile}.zarr", profile, entries) for profile in PROFILES}
    ways = {profile: lambda cache=cache: cache.slab(1)["q"].copy() for profile, cache in caches.items()}
    ways["np.memmap"] = lambda: np.memmap(plain, np.uint8, "r", shape=(samples, CLASSES)).copy()
    rows = []
    for way, read in ways.items():
        # Each beside a plain file alone: what decodes leaves a processor's cache to the next one in another state.
        seconds = interleave({"plain": ways["np.memmap"], "way": read}, rounds=rounds)
        rows.append(
            {
                "way": way,
                "slab_bytes": samples * CLASSES,
                "cache_bytes": caches[way].bytes if way in caches else None,
                "seconds": spread(seconds["way"]),
                "times_memmap": ratios(seconds["way"], seconds["plain"]),
            }
        )
    return rows


def main() -> None:
    """Measure and print."""
    options = arguments("profiles", str(__doc__))
    samples, rounds = (2_000, 3) if options.quick else (50_000, 60)
    with tempfile.TemporaryDirectory(prefix="bancache-benchmark-") as folder:
        report("profiles", measure(Path(folder), samples, rounds), options)


if __name__ == "__main__":
    main()
