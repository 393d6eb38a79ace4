"""``bancache verify`` and ``bancache repair``: damage found, named, mended."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bancache.errors import CacheDamagedError
from bancache_cli import console, options, origin, teachers

if TYPE_CHECKING:
    from bancache.cache.verify import Finding
    from bancache.dumping.audit import Audit


def verify(
    cache: origin.CachePath,
    deep: Annotated[
        bool, typer.Option("--deep", help="Decode every shard, too, and look at every value.")
    ] = False,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="NET", help="Ask the cache's teacher again about some entries, and compare."),
    ] = None,
    entries: Annotated[int, typer.Option(help="How many entries to ask about.", min=2)] = 1024,
    seed: Annotated[int, typer.Option(help="Decides which entries.")] = 0,
    weights: teachers.Weights = None,
    data: options.MaybeData = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare every byte of a cache with its manifest, and say all that is wrong; exit 3 if anything is.

    With `--teacher` also whether it holds what that teacher says: faithful, lossy as its encoding, or unfaithful.

    Example: `bancache verify gen0.zarr --deep --teacher gen0.pt`
    """
    reporter = console.Reporter(quiet=quiet)
    findings = _findings(cache, deep, reporter)
    asked = None
    if teacher is not None and not findings:
        asked = _audit(cache, teacher, entries, seed, weights, data, device, reporter)
    if as_json:
        _show_json(cache, findings, asked)
    else:
        _show(cache, findings, asked)


def _findings(cache: Path, deep: bool, reporter: console.Reporter) -> list[Finding]:
    if deep:
        from bancache.dumping.deep_verify import verify_deeply

        return verify_deeply(cache, progress=reporter)
    from bancache.cache.verify import verify_cache

    return verify_cache(cache, progress=reporter)


def _audit(
    cache: Path,
    teacher: str,
    entries: int,
    seed: int,
    weights: Path | None,
    data: str | None,
    device: str,
    reporter: console.Reporter,
) -> Audit:
    from bancache.cache.reader import open_cache
    from bancache.dumping.audit import audit
    from bancache.system.device import choose_device

    where, manifest = choose_device(device), open_cache(cache).manifest
    images = origin.open_images(manifest, data, reporter)
    loaded = origin.open_teacher(manifest, images, teacher, weights, where)
    return audit(cache, loaded, images, device=where, entries=entries, seed=seed, progress=reporter)


def _show_json(cache: Path, findings: list[Finding], asked: Audit | None) -> None:
    found = [
        {"file": f.file, "region": None if f.shard is None else f.shard.index, "problem": f.problem}
        for f in findings
    ]
    told = {"path": str(cache), "sound": not findings, "findings": found}
    console.show_json(told if asked is None else {**told, "audit": asdict(asked)})
    if findings or (asked is not None and asked.verdict == "unfaithful"):
        raise typer.Exit(CacheDamagedError.exit_code)


def _show(cache: Path, findings: list[Finding], asked: Audit | None) -> None:
    for finding in findings:
        console.say(f"{cache}: {finding}")
    if findings:
        raise CacheDamagedError(
            f"{cache}: {len(findings)} files are not as written",
            hint=f"bancache repair {cache} makes them anew",
        )
    console.say(f"{cache}: sound")
    if asked is not None:
        _show_audit(cache, asked)


def _show_audit(cache: Path, asked: Audit) -> None:
    verdicts = {
        "faithful": "what it holds is what its teacher says",
        "lossy": "what it holds is what its teacher says, as far as its encoding keeps it",
        "unfaithful": "what it holds is not what its teacher says",
    }
    figures = {
        "KL to re-run": asked.stored,
        "of the encoding": asked.encoding,
        "teacher against itself": asked.teacher,
        "promised": asked.promised,
    }
    shown = [f"{k}: mean {v['mean']:.1e}, max {v['max']:.1e}" for k, v in figures.items() if v is not None]
    console.say(f"{cache}: {asked.verdict}: {verdicts[asked.verdict]}")
    console.say(
        f"  {asked.entries:,} entries of {asked.shards:,} shards, {asked.same_bytes:.1%} the same bytes"
    )
    console.say(f"  {'; '.join(shown)} nats")
    for name in asked.named:
        console.say(f"  {name}")
    if asked.verdict == "unfaithful":
        raise CacheDamagedError(
            f"{cache} is unfaithful: {asked.unfaithful} of {asked.entries} entries lose more than can be explained",
            hint="entries of other views, samples or weights: dump again",
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
    """Ask the teacher again for the damaged shards of a cache, and for nothing else.

    What is written is, byte for byte, what was there before; where it would not be, nothing is changed.

    Example: `bancache repair gen0.zarr`
    """
    from bancache.cache.reader import open_cache
    from bancache.dumping.repair import repair as mend
    from bancache.system.device import choose_device, interruptible

    reporter, where = console.Reporter(quiet=quiet), choose_device(device)
    manifest = open_cache(cache).manifest
    images = origin.open_images(manifest, data, reporter)
    loaded = origin.open_teacher(manifest, images, teacher, weights, where)
    with interruptible() as interrupt:
        done = mend(cache, loaded, images, device=where, progress=reporter, interrupt=interrupt)
    if as_json:
        console.show_json({"path": str(cache), "files": len(done.found), "regions": done.shards})
    else:
        console.say(f"{cache}: {len(done.found)} damaged files, {done.shards} shards made anew; sound now")
