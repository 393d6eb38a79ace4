"""Does a cache of ImageNet's size open at once, read as fast as its disk, and go on without reading what it has?

Caches of 1,281,167 samples, 1,000 classes and 50 or 300 views, as a dump would leave them: the same files, records and
manifest, written by the library. Their content is made up. The first view has codes that look like a teacher's and
compress as such; the rows of the other views are all alike, so that their files are small (300 real views would take 300
gigabytes). So sizes in bytes say nothing here; numbers of files, and everything about one view, do. Each figure is taken
in a process of its own; the disk is asked without the page cache. Nothing is flushed while a cache is made. Times are left
out where the machine was busy.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from bancache.bench.timing import ratios
from bancache.cache import Layout, Manifest, Shard
from bancache.cache.digests import digest_of
from bancache.cache.layout import shard_samples_of
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.cache.views import encode_shard
from bancache.cache.writer import CacheWriter
from bancache.encodings.fields import FieldSpec
from benchmarks.memory import Memory

CLASSES = 1000
FIELDS = (FieldSpec("q", "uint8", (CLASSES,), ("class",)),)
ROUNDS = 3


def manifest(samples: int, num_views: int) -> Manifest:
    """Return the manifest of a cache in encoding root4."""
    return Manifest(
        samples=samples,
        num_views=num_views,
        classes=CLASSES,
        fields=FIELDS,
        encoding={"name": "root4", "id": "root-1", "root": 4, "levels": 256},
        view_space={"id": "counters-1", "name": "rrc-flip", "seed": 0},
        pixels={"normalisation": {"mean": [125.3], "std": [51.6]}, "golden": "0" * 64, "size": [224, 224]},
        dataset={
            "spec": {"source": "synthetic"},
            "fingerprint": "1" * 64,
            "classes": [f"class {number}" for number in range(CLASSES)],
        },
        teacher={"fingerprint": "2" * 64, "architecture": {"name": "none"}, "generation": 0},
        compute={"batch_size": 256, "precision": "float32"},
        created_with={"bancache": "0"},
        shard_samples=shard_samples_of(samples, FIELDS, "default"),
    )


def build(path: Path, samples: int, num_views: int) -> None:
    """Write all shards of a cache but the last."""
    with mock.patch("os.fsync"), open_writer(path, manifest(samples, num_views)) as writer:
        assert writer is not None
        codes, alike = _codes(writer.layout.block), np.full((writer.layout.block, CLASSES), 255, np.uint8)
        files: dict[int, bytes] = {}
        for shard in writer.pending()[:-1]:
            rows = shard.stop - shard.start
            if shard.view_index == 0:
                writer.write_shard(shard, {"q": np.roll(codes[:rows], shard.block, axis=1)}, _facts(rows))
                continue
            if rows not in files:
                ((_, files[rows]),) = encode_shard(path, writer.layout, shard, {"q": alike[:rows]}, {})
            _adopt(writer, shard, files[rows], _facts(rows))


def _adopt(writer: CacheWriter, shard: Shard, content: bytes, facts: dict[str, Any]) -> None:
    (key,) = writer.layout.chunk_keys(shard)
    (writer.path / key).parent.mkdir(parents=True, exist_ok=True)
    (writer.path / key).write_bytes(content)
    writer.adopt(shard, {key: digest_of(content)}, {}, facts)


def _codes(rows: int) -> NDArray[np.uint8]:
    """Return codes of peaked random distributions, which compress to four fifths."""
    logits = np.random.default_rng(0).standard_normal((rows, CLASSES), dtype=np.float32) * 2.5
    codes: NDArray[np.uint8] = np.rint(255 * np.exp((logits - logits.max(1, keepdims=True)) / 4)).astype(
        np.uint8
    )
    return codes


def _facts(rows: int) -> dict[str, Any]:
    """Return facts of the shape and size of a real shard's."""
    bins = {str(number): rows // 64 + (number == 0) * (rows % 64) for number in range(-63, 1)}
    tally = {"entries": rows, "agree": rows, "kl_sum": 1e-5 * rows, "kl_max": 1e-4, "bins": bins}
    tally |= {"gradient_wrong": 1e-3 * rows, "gradient_scale": 1.0 * rows}
    return {
        "tally": dict.fromkeys(("1", "2", "4"), tally),
        "correct": rows,
        "confidence": 0.8 * rows,
        "finite": rows * CLASSES,
    }


def asked(what: str, path: Path) -> dict[str, Any]:
    """Return figures of one process: of ``open``, ``view`` or ``go on``."""
    if what == "open":
        memory, began = Memory(), time.perf_counter()
        cache = open_cache(path)
        row = {"open_seconds": time.perf_counter() - began, "open_megabytes": memory.risen() / 1e6}
        return {**row, "open_process_megabytes": memory.peak() / 1e6, "files": len(cache.digests) + 1}
    return _view(path) if what == "view" else _go_on(path)


def _view(path: Path) -> dict[str, Any]:
    """Read the first view, and the bytes of its files alone, in turns and from the disk."""
    cache = open_cache(path)
    layout = Layout(cache.manifest)
    files = [path / key for shard in layout.shards_of(0) for key in layout.chunk_keys(shard)]
    variants: dict[str, Callable[[], object]] = {
        "view": lambda: cache.read_view(0),
        "plain": lambda: [file.read_bytes() for file in files],
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(2 * ROUNDS):
        name = list(variants)[(turn + turn // 2) % 2]
        _forget(files)
        began = time.perf_counter()
        variants[name]()
        seconds[name].append(time.perf_counter() - began)
    decoded = cache.manifest.samples * sum(layout.pair_bytes)
    return {**seconds, "stored": sum(file.stat().st_size for file in files), "decoded": decoded}


def _forget(files: list[Path]) -> None:
    """Drop files from the page cache; only what is on the disk can be dropped."""
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _go_on(path: Path) -> dict[str, Any]:
    """Begin to go on with a cache that lacks one shard; then write it and complete the cache."""
    from bancache.dumping.summary import summarize_shards

    planned = Manifest.from_dict(json.loads((path / "manifest.json").read_text())["promise"])
    memory, began = Memory(), time.perf_counter()
    with open_writer(path, planned) as writer:
        assert writer is not None
        (shard,) = writer.pending()
        row = {"resume_seconds": time.perf_counter() - began, "resume_megabytes": memory.risen() / 1e6}
        rows = shard.stop - shard.start
        writer.write_shard(shard, {"q": np.full((rows, CLASSES), 255, np.uint8)}, _facts(rows))
        began = time.perf_counter()
        assert writer.finish(lambda facts: summarize_shards(facts, planned.num_views))
    return {**row, "finish_seconds": time.perf_counter() - began, "finish_megabytes": memory.risen() / 1e6}


def rows(*, quick: bool) -> list[dict[str, Any]]:
    """Make the caches and measure each; two rows for each."""
    found = []
    for num_views in (2, 4) if quick else (50, 300):
        samples = 3000 if quick else 1_281_167
        with tempfile.TemporaryDirectory(dir=os.environ.get("BANCACHE_BENCHMARK_DISK")) as folder:
            path = Path(folder) / "large.zarr"
            build(path, samples, num_views)
            row: dict[str, Any] = {"samples": samples, "views": num_views, "classes": CLASSES}
            for what in ("go on", "open", "view"):
                command = [sys.executable, "-m", "benchmarks.large_cache", what, str(path)]
                row |= json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        view, plain = row.pop("view"), row.pop("plain")
        row |= {"view_seconds": statistics.median(view), "plain_seconds": statistics.median(plain)}
        row["load"] = os.getloadavg()[2]
        # Times of a machine that is busy with other things mean nothing.
        if row["load"] > 2 * (os.cpu_count() or 1):
            found.append({name: value for name, value in row.items() if not name.endswith("_seconds")})
            continue
        found += [
            row,
            {
                "ratio": f"a view of {samples:,} / the plain bytes of its files, from the disk, {num_views} views",
                "value": ratios(view, plain),
                "target": "<= 1.5",
            },
        ]
    return found


if __name__ == "__main__":
    print(json.dumps(asked(sys.argv[1], Path(sys.argv[2]))))
