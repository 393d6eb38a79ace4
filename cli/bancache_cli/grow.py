"""``bancache extend``, ``merge`` and ``prune``: caches of more views, out of parts, of fewer views."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bancache_cli import console, options, origin, teachers

if TYPE_CHECKING:
    from bancache.cache.reader import Cache
    from bancache.dumping import DumpResult

Views = Annotated[int, typer.Option(help="Views to store of each image, in all.", min=1)]
InPlace = Annotated[
    Path | None, typer.Option(help="Where to write; by default the new cache takes the place of the old one.")
]


def extend(
    cache: origin.CachePath,
    num_views: Views,
    out: InPlace = None,
    teacher: origin.MaybeNet = None,
    weights: teachers.Weights = None,
    data: options.MaybeData = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Add views to a finished cache; the teacher is asked for the new ones only.

    The larger cache is made beside the old one, whose files it shares by hard links, and takes its place when it
    is complete. Killed at any instant, the same command goes on where it stopped.

    Example: `bancache extend gen0.zarr --num-views 32`
    """
    from bancache.cache.reader import open_cache
    from bancache.cache.replace import recover
    from bancache.dumping.extend import extend as grow
    from bancache.report.results import append_once
    from bancache.system.device import choose_device, environment, interruptible

    reporter, where = console.Reporter(quiet=quiet), choose_device(device)
    recover(cache)
    manifest = open_cache(cache).manifest
    images = origin.open_images(manifest, data, reporter)
    loaded = origin.open_teacher(manifest, images, teacher, weights, where)
    with interruptible() as interrupt:
        result = grow(
            cache, loaded, images, num_views, out=out, device=where, progress=reporter, interrupt=interrupt
        )
    about = {"command": console.command_line(), "environment": environment(where)}
    record = {**result.record(), "seed": loaded.header.get("seed", 0), **about}
    append_once(result.cache.path.parent / "results.jsonl", record, "digest", "out")
    _tell(result.cache, as_json=as_json, result=result)


def merge(
    caches: Annotated[
        list[Path], typer.Argument(help="Stores of one teacher and one promise, whole or in part.")
    ],
    out: Annotated[Path, typer.Option(help="Where to write the merged cache.")],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Join stores that each hold a part of one cache, unfinished or damaged, into a complete one.

    Each shard comes from the first store that has it sound; where some are in none, the command names them.

    Example: `bancache merge here.zarr there.zarr --out gen0.zarr`
    """
    from bancache.dumping.merge import merge_caches

    merged = merge_caches(caches, out, progress=console.Reporter(quiet=quiet))
    taken = [{"path": str(path), "regions": n} for path, n in zip(caches, merged.taken, strict=True)]
    _tell(merged.cache, as_json=as_json, taken=taken, differing=merged.differing)


def prune(
    cache: origin.CachePath,
    num_views: Views,
    out: InPlace = None,
    data: options.MaybeData = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Keep the first views of a finished cache and leave out the others; no teacher is asked.

    Example: `bancache prune gen0.zarr --num-views 8 --out small.zarr`
    """
    from bancache.cache.reader import open_cache
    from bancache.cache.replace import recover
    from bancache.dumping.prune import prune as shrink

    reporter = console.Reporter(quiet=quiet)
    recover(cache)
    manifest = open_cache(cache).manifest
    images = origin.open_images(manifest, data, reporter)
    _tell(shrink(cache, num_views, images, out=out, progress=reporter), as_json=as_json)


def _tell(cache: Cache, *, as_json: bool, result: DumpResult | None = None, **more: Any) -> None:
    manifest = cache.manifest
    answered = {"answered": result.entries, "seconds": round(result.seconds, 3)} if result else {}
    said = {
        "out": str(cache.path),
        "samples": manifest.samples,
        "views": manifest.num_views,
        "bytes": cache.bytes,
        "digest": cache.digest,
        **answered,
        **more,
    }
    if as_json:
        console.show_json(said)
        return
    asked = f", {result.entries:,} views asked for in {result.seconds:,.1f} s" if result else ""
    console.say(
        f"{cache.path}: {manifest.num_views} views of {manifest.samples:,} images, "
        f"{console.bytes_text(cache.bytes)}{asked}"
    )
    for part in more.get("taken", ()):
        console.say(f"  {part['regions']:,} shards of {part['path']}")
