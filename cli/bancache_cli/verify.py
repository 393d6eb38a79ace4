"""``bancache verify`` and ``bancache repair``: damage found, named, mended."""

from __future__ import annotations

import typer

from bancache.errors import CacheDamagedError
from bancache_cli import console, options, origin, teachers


def verify(cache: origin.CachePath, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Compare every byte of a cache with its manifest, and say all that is wrong; exit 3 if anything is.

    Example: `bancache verify gen0.zarr`
    """
    from bancache.cache.verify import verify_cache

    findings = verify_cache(cache, progress=console.Reporter(quiet=quiet))
    found = [
        {"file": f.file, "region": None if f.region is None else f.region.index, "problem": f.problem}
        for f in findings
    ]
    if as_json and not findings:
        console.show_json({"path": str(cache), "sound": True, "findings": []})
    elif as_json:
        console.show_json({"path": str(cache), "sound": False, "findings": found})
        raise typer.Exit(CacheDamagedError.exit_code)
    elif not findings:
        console.say(f"{cache}: sound")
    else:
        for finding in findings:
            console.say(f"{cache}: {finding}")
        raise CacheDamagedError(
            f"{cache}: {len(findings)} files are not as written",
            hint=f"bancache repair {cache} makes them anew",
        )


def repair(
    cache: origin.CachePath,
    teacher: origin.MaybeNet = None,
    weights: teachers.Weights = None,
    data: options.MaybeData = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask the teacher again for the damaged regions of a cache, and for nothing else.

    What is written is, byte for byte, what was there before; where it would not be, nothing is changed.

    Example: `bancache repair gen0.zarr`
    """
    from bancache.cache.reader import open_cache
    from bancache.dump.repair import repair as mend
    from bancache.runtime import choose_device, interruptible

    reporter, where = console.Reporter(quiet=quiet), choose_device(device)
    manifest = open_cache(cache).manifest
    images = origin.open_images(manifest, data, reporter)
    loaded = origin.open_teacher(manifest, images, teacher, weights, where)
    with interruptible() as interrupt:
        done = mend(cache, loaded, images, device=where, progress=reporter, interrupt=interrupt)
    if as_json:
        console.show_json({"path": str(cache), "files": len(done.found), "regions": done.regions})
    else:
        console.say(f"{cache}: {len(done.found)} damaged files, {done.regions} regions made anew; sound now")
