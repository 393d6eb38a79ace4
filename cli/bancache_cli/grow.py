"""``bancache extend``, ``merge`` and ``prune``: make a new cache from existing ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bancache_cli import console, options, teachers

if TYPE_CHECKING:
    from bancache.cache.reader import Cache

NumViews = Annotated[int, typer.Option(help="Total number of views in the new cache.", min=1)]
Out = Annotated[Path, typer.Option(help="Directory of the new cache.")]


def extend(
    *,
    cache: options.CachePath,
    num_views: NumViews,
    out: Out,
    teacher: teachers.MaybeTeacher = None,
    origin: teachers.OriginOptions,
    output: options.OutputOptions,
) -> None:
    """Write a new cache with more views; the teacher runs on the new views only.

    The new cache shares files with the old one by hard links. After a kill, the same command continues.

    Example: `bancache extend gen0.zarr --num-views 32 --out gen0-32.zarr`
    """
    from bancache.dumping.resize import extend as extend_cache
    from bancache.system.signals import interruptible

    reporter = output.reporter()
    loaded, images, where = origin.open(cache, teacher, reporter)
    with interruptible() as interrupt:
        result = extend_cache(
            cache, loaded, images, num_views, out=out, device=where, progress=reporter, interrupt=interrupt
        )
    console.record(out, {**result.record(), "seed": loaded.header.get("seed", 0)}, where, "digest")
    _show(result.cache, output.as_json, computed=result.num_pairs, seconds=round(result.seconds, 3))


def merge(
    *,
    caches: Annotated[
        list[Path], typer.Argument(help="Parts of one cache, complete or not, from the same teacher.")
    ],
    out: Out,
    output: options.OutputOptions,
) -> None:
    """Merge unfinished or damaged parts of one cache into a complete cache.

    Each shard comes from the first part where it is intact. Shards that no part has are listed.

    Example: `bancache merge here.zarr there.zarr --out gen0.zarr`
    """
    from bancache.dumping.merge import merge_caches

    merged = merge_caches(caches, out, progress=output.reporter())
    taken = [{"path": str(path), "shards": n} for path, n in zip(caches, merged.taken, strict=True)]
    _show(merged.cache, output.as_json, taken=taken, differing=merged.differing)


def prune(
    *,
    cache: options.CachePath,
    num_views: NumViews,
    out: Out,
    data: options.MaybeData = None,
    output: options.OutputOptions,
) -> None:
    """Write a new cache with the first views of a cache; no teacher is needed.

    Example: `bancache prune gen0.zarr --num-views 8 --out small.zarr`
    """
    from bancache.cache.reader import open_cache
    from bancache.dumping.resize import prune as prune_cache

    reporter = output.reporter()
    images = teachers.open_images(open_cache(cache).manifest, data, reporter)
    _show(prune_cache(cache, images, num_views, out=out, progress=reporter), output.as_json)


def _show(cache: Cache, as_json: bool, **more: Any) -> None:
    manifest = cache.manifest
    if as_json:
        about = {"out": str(cache.path), "samples": manifest.samples, "views": manifest.num_views}
        console.show_json({**about, "bytes": cache.bytes, "digest": cache.digest, **more})
        return
    computed = f", {more['computed']:,} computed in {more['seconds']:,.1f} s" if "computed" in more else ""
    console.say(
        f"{cache.path}: {manifest.num_views} views of {manifest.samples:,} images, "
        f"{console.bytes_text(cache.bytes)}{computed}"
    )
    for part in more.get("taken", ()):
        console.say(f"  {part['shards']:,} shards from {part['path']}")
