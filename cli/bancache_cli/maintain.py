"""``bancache verify`` and ``repair`` a cache; ``extend``, ``merge`` and ``prune`` caches to a new one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option

from bancache.errors import CacheDamagedError
from bancache.system.files import require_writable
from bancache.system.wording import command, count
from bancache_cli import console, options, origins, packs

if TYPE_CHECKING:
    from bancache.cache.manifest import Manifest
    from bancache.cache.reader import Cache
    from bancache.cache.verify import Finding
    from bancache.dumping.audit import Audit

NumViews = Annotated[int, Option(help="Total number of views in the new cache.", min=1)]
Out = Annotated[Path, Option(help="Directory of the new cache.")]
_MISMATCH = "mismatch"
_MEANINGS = {
    "verified": "the stored targets are those of the teacher",
    "within quantization error": "the stored targets differ from the teacher's by no more than the encoding loses",
    _MISMATCH: "the stored targets are not those of the teacher",
}
_FIGURES = {
    "stored": "KL to the teacher now",
    "encoding": "of the encoding",
    "teacher": "teacher to itself",
    "recorded": "at dump time",
}


def verify(
    *,
    cache: options.CacheOrPack,
    deep: Annotated[bool, Option("--deep", help="Also decode every shard and check every value.")] = False,
    teacher: Annotated[
        list[str] | None,
        Option(metavar="MODEL", help="Run the cache's teacher again on some pairs, and compare."),
    ] = None,
    num_pairs: Annotated[int, Option(help="(sample, view) pairs to compare.", min=2)] = 1024,
    seed: Annotated[int, Option(help="Seed for the choice of pairs.")] = 0,
    origin: origins.OriginOptions,
    output: options.OutputOptions,
) -> None:
    """Check every file of a cache against its manifest, and list all damage; exit code 3 if there is any.

    With `--teacher`, also compare with new forward passes: verified, within quantization error, or mismatch. A cache in
    an object store is named by its address. Of a pack, check every picture against its sha256, with `--deep` also the
    decoded pixels against the fingerprint; exit code 1 for damage.

    Example: `bancache verify gen0.zarr --deep --teacher gen0.pt`
    """
    if packs.is_pack(cache):
        packs.verify(cache, deep, teacher, output)
        return
    if teacher:
        origin.check(cache, teacher)
    reporter = output.reporter()
    _open(cache)
    if deep:
        from bancache.dumping.repair import verify_deeply as find
    else:
        from bancache.cache.verify import verify_cache as find
    findings, audit = find(cache, progress=reporter), None
    if teacher and not findings:
        from bancache.dumping.audit import audit as run_audit

        loaded, images, where = origin.open(cache, teacher, reporter)
        audit = run_audit(
            cache, loaded, images, device=where, num_pairs=num_pairs, seed=seed, progress=reporter
        )
    if output.as_json:
        _show_json(cache, findings, audit, output)
    else:
        _show(cache, findings, audit)


def _show_json(
    cache: Path, findings: list[Finding], audit: Audit | None, output: options.OutputOptions
) -> None:
    found = [
        {"file": f.file, "shard": None if f.shard is None else f.shard.index, "problem": f.problem}
        for f in findings
    ]
    facts = {"path": str(cache), "intact": not findings, "findings": found}
    output.show_json(facts if audit is None else {**facts, "audit": asdict(audit)})
    if findings or (audit is not None and audit.verdict == _MISMATCH):
        raise Exit(CacheDamagedError.exit_code)


def _show(cache: Path, findings: list[Finding], audit: Audit | None) -> None:
    for finding in findings:
        console.say(f"{cache}: {finding}")
    if findings:
        raise CacheDamagedError(
            f"{cache}: {count(len(findings), 'damaged file')}",
            hint=f"run {command('repair', cache)}",
        )
    console.say(f"{cache}: intact")
    if audit is not None:
        _show_audit(cache, audit)


def _show_audit(cache: Path, audit: Audit) -> None:
    verdict, pairs = audit.verdict, audit.num_pairs
    console.say(f"{cache}: {verdict}: {_MEANINGS[verdict]}")
    console.say(
        f"  {count(pairs, 'pair')} of {count(audit.shards, 'shard')}, {audit.same_bytes:.1%} the same bytes"
    )
    values = asdict(audit)
    figures = ((title, values[key]) for key, title in _FIGURES.items() if values[key] is not None)
    shown = "; ".join(f"{title}: mean {kl['mean']:.1e}, max {kl['max']:.1e}" for title, kl in figures)
    console.say(f"  {shown} nats")
    for name in audit.examples:
        console.say(f"  {name}")
    if verdict == _MISMATCH:
        raise CacheDamagedError(
            f"{cache}: mismatch: {audit.mismatches:,} of {count(pairs, 'pair')} differ from the teacher by more than "
            "the encoding and its own noise explain",
            hint="the cache holds targets of other views, samples or weights; make it again with `bancache dump`",
        )


def repair(
    *,
    cache: options.CacheOrPack,
    teacher: origins.MaybeTeacher = None,
    origin: origins.OriginOptions,
    output: options.OutputOptions,
) -> None:
    """Run the teacher again for the damaged shards of a cache, and write them anew.

    The new files are byte-identical to the lost ones; if they would not be, nothing is changed. Damaged pictures of a pack are
    read again from where they came, or from `--data`, if they are the same. A pack in an object store is put anew as a whole.

    Example: `bancache repair gen0.zarr`
    """
    if packs.is_pack(cache):
        packs.repair(cache, teacher, origin.data, output)
        return
    _open(cache)
    origin.check(cache, teacher)
    from bancache.dumping.repair import repair as repair_cache
    from bancache.system.signals import interruptible

    reporter = output.reporter()
    loaded, images, where = origin.open(cache, teacher, reporter)
    with interruptible() as interrupt:
        done = repair_cache(cache, loaded, images, device=where, progress=reporter, interrupt=interrupt)
    files = len(done.found)
    output.show(
        {"path": str(cache), "files": files, "shards": done.shards},
        f"{cache}: {count(files, 'damaged file')}, {count(done.shards, 'shard')} written anew; intact now",
    )


def extend(
    *,
    cache: options.CachePath,
    num_views: NumViews,
    out: Out,
    teacher: origins.MaybeTeacher = None,
    origin: origins.OriginOptions,
    output: options.OutputOptions,
) -> None:
    """Write a new cache with more views; the teacher runs on the new views only.

    The new cache shares files with the old one by hard links. After a kill, the same command continues.

    Example: `bancache extend gen0.zarr --num-views 32 --out gen0-32.zarr`
    """
    _open_to_resize(cache, num_views, out, larger=True)
    origin.check(cache, teacher)
    from bancache.dumping.resize import extend as extend_cache
    from bancache.system.signals import interruptible

    reporter = output.reporter()
    loaded, images, where = origin.open(cache, teacher, reporter)
    with interruptible() as interrupt:
        result = extend_cache(
            cache, loaded, images, num_views, out=out, device=where, progress=reporter, interrupt=interrupt
        )
    console.record(out, {**result.record(), "seed": loaded.header.get("seed", 0)}, where, "digest")
    _show_new(result.cache, output, computed=result.num_pairs, seconds=round(result.seconds, 3))


def merge(
    *,
    caches: Annotated[
        list[Path], Argument(help="Parts of one cache, complete or not, from the same teacher.")
    ],
    out: Out,
    output: options.OutputOptions,
) -> None:
    """Merge unfinished or damaged parts of one cache into a complete cache.

    Each shard comes from the first part where it is intact. Shards that no part has are listed.

    Example: `bancache merge here.zarr there.zarr --out gen0.zarr`
    """
    for part in caches:
        _open(part, on_disk=True)
    require_writable(out)
    from bancache.dumping.merge import merge_caches

    merged = merge_caches(caches, out, progress=output.reporter())
    taken = [{"path": str(path), "shards": n} for path, n in zip(caches, merged.taken, strict=True)]
    _show_new(merged.cache, output, taken=taken, differing=merged.differing)


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
    manifest = _open_to_resize(cache, num_views, out, larger=False)
    from bancache.dumping.resize import prune as prune_cache

    reporter = output.reporter()
    images = origins.open_images(manifest, data, reporter)
    _show_new(prune_cache(cache, images, num_views, out=out, progress=reporter), output)


def _open(cache: Path, *, on_disk: bool = False) -> Manifest:
    """Return the manifest of a cache, complete or not, before anything slow is imported; refuse an address if ``on_disk``."""
    from bancache.cache.manifest_io import manifest_of, read_manifest, require_local

    if on_disk:
        require_local(cache)
    return manifest_of(read_manifest(cache))


def _open_to_resize(cache: Path, num_views: int, out: Path, *, larger: bool) -> Manifest:
    """Do what ``_open`` does, and refuse an output or a number of views that cannot be, before the images are opened."""
    from bancache.cache.import_shards import require_resizable

    manifest = _open(cache, on_disk=True)
    require_resizable(cache, manifest, num_views, out, larger=larger)
    require_writable(out)
    return manifest


def _show_new(cache: Cache, output: options.OutputOptions, **more: Any) -> None:
    manifest = cache.manifest
    if output.as_json:
        about = {"out": str(cache.path), "samples": manifest.samples, "views": manifest.num_views}
        output.show_json({**about, "bytes": cache.bytes, "digest": cache.digest, **more})
        return
    computed = f", {more['computed']:,} computed in {more['seconds']:,.1f} s" if "computed" in more else ""
    console.say(
        f"{cache.path}: {count(manifest.num_views, 'view')} of {count(manifest.samples, 'image')}, "
        f"{console.bytes_text(cache.bytes)}{computed}"
    )
    for part in more.get("taken", ()):
        console.say(f"  {count(part['shards'], 'shard')} from {part['path']}")
