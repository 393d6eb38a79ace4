"""``bancache dump``: a teacher's answer to every view, on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bancache.errors import UsageError
from bancache.system.ranks import Rank, rank_from_env
from bancache_cli import console, options, teachers

if TYPE_CHECKING:
    import torch

    from bancache.cache import Shard
    from bancache.dumping import DumpResult, DumpSettings
    from bancache_cli.workers import Workers


def dump(
    context: typer.Context,
    teacher: teachers.Net,
    out: options.Out = None,
    weights: teachers.Weights = None,
    views: options.Views = None,
    num_views: options.NumViews = None,
    view_seed: teachers.ViewSeed = 0,
    encoding: options.Encoding = None,
    profile: options.Profile = "default",
    max_kl: Annotated[
        float | None,
        typer.Option(
            help="Choose the smallest encoding that loses at most so many nats, and hold it to that."
        ),
    ] = None,
    temperature: teachers.StudentTemperature = None,
    precision: teachers.Precision = None,
    batch_size: options.DumpBatch = 256,
    data: options.MaybeData = None,
    limit: options.Limit = None,
    image_size: options.ImageSize = None,
    download: options.Download = False,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    workers: options.Workers = None,
    join: options.Join = False,
    rank: options.Rank = None,
    world_size: options.WorldSize = None,
    worker: Annotated[int | None, typer.Option(hidden=True, help="Which of --workers this is.")] = None,
    force: options.Force = False,
    copy_to: Annotated[
        str | None,
        typer.Option(
            help="An address such as s3://bucket/gen0.zarr, to which each shard is copied when it is done."
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a teacher once over its training images and keep what it says of every view.

    A checkpoint of ours knows its data and views; a net from elsewhere needs `--data` and `--views`. Killed
    at any instant, the same command goes on where it stopped. On other machines that see the same folder, the
    same command with `--join` helps.

    Example: `bancache dump --teacher gen0.pt --num-views all`
    """
    if encoding is not None and max_kl is not None:
        raise UsageError("--max-kl chooses the encoding", hint="leave out --encoding or --max-kl")
    if copy_to is not None and (join or workers is not None):
        raise UsageError(
            "--copy-to is for a dump by one process", hint="copy it when it is done: bancache push"
        )
    place, target = _place(join, overwrite, rank, world_size, worker), out or default_name(teacher)
    if workers is not None:
        from bancache_cli.workers import Workers

        asked = Workers(workers, context.obj, place, join=join, overwrite=overwrite, quiet=quiet)
        _tell(_by_workers(asked, teacher, target, device), as_json=as_json)
        return
    from bancache.dumping import dump as write
    from bancache.system.device import choose_device, interruptible

    reporter, where = console.Reporter(quiet=quiet), choose_device(device, local=place.local)
    opened = teachers.open_teacher(
        teacher,
        where,
        reporter,
        weights=weights,
        precision=precision,
        views=views,
        data=data,
        limit=limit,
        image_size=image_size,
        download=download,
    )
    settings = teachers.settle(
        opened,
        views=views,
        num_views=num_views,
        view_seed=view_seed,
        encoding=encoding,
        batch_size=batch_size,
        temperature=temperature,
    )
    settings = replace(settings, profile=profile)
    if max_kl is not None:
        bound = teachers.students_temperature(opened, temperature), max_kl
        kept = None if overwrite else _encoding_at(target)
        settings = replace(settings, bound=bound, encoding=kept or settings.encoding)
        if kept is None:
            settings = _smallest(opened, settings, bound, where, reporter)
    with (
        interruptible() as interrupt,
        _followed(target, copy_to, reporter, overwrite=overwrite) as recorded,
    ):
        result = write(
            opened.teacher,
            opened.images,
            opened.spec.resolved(),
            target,
            settings,
            device=where,
            overwrite=overwrite,
            join=join,
            place=place,
            force=force,
            progress=reporter,
            interrupt=interrupt,
            recorded=recorded,
        )
    # Of several processes, the one that finished says so; or the one that started them.
    if result.finished and worker is None:
        _record(result, target, where, opened.teacher.header.get("seed", 0))
    _tell(result, as_json=as_json)


@contextmanager
def _followed(
    out: Path, address: str | None, reporter: console.Reporter, *, overwrite: bool
) -> Iterator[Callable[[Shard], object] | None]:
    """Let a copy follow the dump, where one is wanted."""
    if address is None:
        yield None
        return
    from bancache.remote.bucket import Bucket
    from bancache.remote.mirror import mirrored

    with mirrored(out, Bucket(address), overwrite=overwrite, progress=reporter) as recorded:
        yield recorded


def _place(join: bool, overwrite: bool, rank: int | None, world_size: int | None, worker: int | None) -> Rank:
    """Return which of several this process is, after a look at whether that makes sense."""
    if not join and (rank is not None or world_size is not None):
        raise UsageError("--rank and --world-size are for those that join", hint="add --join")
    if join and overwrite:
        raise UsageError("who joins cannot overwrite", hint="leave out --join or --overwrite")
    place = rank_from_env(os.environ, rank=rank, world_size=world_size) if join else Rank()
    return place if worker is None else replace(place, local=worker)


def _by_workers(asked: Workers, teacher: str, out: Path, device: str) -> DumpResult:
    """Let several processes do it, and write the result line that none of them writes."""
    from bancache.system.device import choose_device
    from bancache_cli.workers import dump_with_workers

    result = dump_with_workers(asked, out)
    _record(result, out, choose_device(device), seed_of(teacher))
    return result


def _encoding_at(out: Path) -> str | None:
    """Return the encoding of a cache that is there already, finished or not: it stays, and is held to the bound."""
    from bancache.cache.info import describe

    return str(describe(out)["encoding"]["name"]) if (out / "manifest.json").is_file() else None


def _smallest(
    opened: teachers.Opened,
    settings: DumpSettings,
    bound: tuple[float, float],
    device: torch.device,
    reporter: console.Reporter,
) -> DumpSettings:
    """Return the settings with the smallest encoding that keeps the bound on a probe."""
    from bancache.dumping.plan import choose, take_probe, weigh
    from bancache.encodings import KNOWN

    probe = take_probe(
        opened.teacher,
        opened.images,
        settings.space,
        settings.num_views,
        settings.normalization,
        device=device,
    )
    temperature, max_kl = bound
    chosen = choose(weigh(probe, KNOWN), max_kl=max_kl, temperature=temperature)
    reporter.note(
        f"{chosen.encoding}: {chosen.bytes_per_entry:.1f} bytes an entry, loses "
        f"{chosen.kl_mean(temperature):.1e} nats at temperature {temperature:g} on {len(probe.logits):,} entries"
    )
    return replace(settings, encoding=chosen.encoding)


def default_name(teacher: str) -> Path:
    """Return what a cache is called: beside a teacher's file, or after its name in the current folder."""
    if Path(teacher).is_file():
        return Path(teacher).with_suffix(".zarr")
    return Path(f"{teacher.replace(':', '-').replace('/', '-')}.zarr")


def seed_of(teacher: str) -> int:
    """Return the seed that a teacher's own training had; 0 for a net from elsewhere."""
    from bancache.models.checkpoint import load_checkpoint
    from bancache.models.teacher import is_foreign

    return 0 if is_foreign(teacher) else int(load_checkpoint(Path(teacher)).header.get("seed", 0))


def _record(result: DumpResult, out: Path, device: torch.device, seed: int) -> None:
    from bancache.report.results import append_once
    from bancache.system.device import environment

    where = {"command": console.command_line(), "environment": environment(device)}
    append_once(out.parent / "results.jsonl", {**result.record(), "seed": seed, **where}, "digest", "out")


def _tell(result: DumpResult, *, as_json: bool) -> None:
    record = result.record()
    if as_json:
        record.pop("kind")
        console.show_json(record)
        return
    kl = record["fidelity"]["1"]["kl_mean"]
    rate = f", {record['images_per_second']:,.0f} images/s" if record["images_per_second"] else ""
    every = " (all there are)" if record["views"] == _lattice_size(result) else ""
    console.say(
        f"{record['out']}: {record['views']} views{every} of {record['samples']:,} images, "
        f"{record['encoding']}, {console.bytes_text(record['bytes'])}, "
        f"{record['bytes_per_entry']:.1f} bytes an entry, "
        f"KL from the teacher {kl:.1e} nats, {record['seconds']:,.1f} s{rate}"
    )


def _lattice_size(result: DumpResult) -> int:
    from bancache.views import ViewSpace

    return ViewSpace.from_dict(result.cache.manifest.view_space).size
