"""``bancache dump``: a teacher's soft targets for every view, on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from bancache.errors import UsageError
from bancache.system.device import check_device_name, make_deterministic
from bancache.system.ranks import Rank, rank_from_env
from bancache.system.wording import count
from bancache_cli import console, early, options, teachers

if TYPE_CHECKING:
    import torch

    from bancache.cache import Shard
    from bancache.dumping import DumpResult, DumpSettings
    from bancache.system.progress import Progress


@dataclass(frozen=True)
class EncodingOptions(options.StoreOptions):
    """How a cache stores soft targets, and how much it may lose."""

    max_kl: Annotated[
        float | None,
        Option(help="Choose the smallest encoding with at most this mean KL in nats, and enforce it."),
    ] = None
    temperature: Annotated[
        float | None,
        Option(
            min=0.01,
            help="Temperature of the students: decides the encoding and where --max-kl applies "
            "(default: from the teacher's recipe).",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.encoding is not None and self.max_kl is not None:
            raise UsageError("--max-kl chooses the encoding", hint="leave out --encoding or --max-kl")


@dataclass(frozen=True)
class TargetOptions:
    """Where a dump writes."""

    out: options.Out = None
    overwrite: options.Overwrite = False
    force: Annotated[bool, Option("--force", help="Start although the disk seems too small.")] = False
    copy_to: Annotated[
        str | None, Option(help="Copy each finished shard to this address, such as s3://bucket/gen0.zarr.")
    ] = None


@dataclass(frozen=True)
class JoinOptions:
    """Several processes that fill one cache."""

    join: Annotated[
        bool, Option("--join", help="Share the work with other processes that dump to the same path.")
    ] = False
    rank: Annotated[
        int | None, Option(help="This process's rank (default: from the launcher).", metavar="R")
    ] = None
    world_size: Annotated[
        int | None, Option(help="Number of processes that join (default: from the launcher).", metavar="N")
    ] = None


def dump(
    *,
    teacher: teachers.TeacherOptions,
    target: TargetOptions,
    views: options.SeededViewOptions,
    encoding: EncodingOptions,
    data: options.TeacherDataOptions,
    batch_size: Annotated[
        int | None,
        Option(
            help="Images per forward pass of the teacher (default: 256 if they fit; on CUDA, what is measured to be fast)."
        ),
    ] = None,
    device: options.Device = "auto",
    deterministic: options.Deterministic = False,
    join: JoinOptions,
    output: options.OutputOptions,
) -> None:
    """Run a teacher on every view of its training images, and store its soft targets.

    A bancache checkpoint has recorded its data and views; other models need `--data` and `--views`. Several teachers
    are an ensemble, each with its own normalization. After a kill, the same command goes on. To use more processes or
    machines, run the same command with `--join` in each.

    Example: `bancache dump --teacher gen0.pt --num-views all`
    """
    check_device_name(device)
    rank, out = _rank(join, target), target.out or _default_name(teacher.teacher)
    teachers.check(teacher, views.views, data)
    new = target.overwrite
    early.require_cache(out, teacher, views, encoding, batch_size, alone=not join.join, overwrite=new)
    from bancache.dumping import dump as write
    from bancache.system.device import choose_device
    from bancache.system.signals import interruptible

    if deterministic:
        make_deterministic()
    reporter, where = output.reporter(), choose_device(device, local=rank.local)
    opened = teachers.open_teacher(teacher, views.views, data, where, reporter)
    settings = teachers.dump_settings(opened, views, encoding.temperature)
    name = encoding.encoding or settings.encoding
    at_once = batch_size or _batch_size(out, target, opened, settings, where, reporter)
    settings = replace(settings, encoding=name, batch_size=at_once, profile=encoding.profile)
    if encoding.max_kl is not None:
        bound = teachers.student_temperature(opened, encoding.temperature), encoding.max_kl
        settings = _bounded(out, target, opened, settings, bound, where, reporter)
    with interruptible() as interrupt, _mirrored(out, target, reporter) as recorded:
        result = write(
            opened.teacher,
            opened.images,
            opened.spec.resolved(),
            out,
            settings,
            device=where,
            overwrite=target.overwrite,
            join=join.join,
            rank=rank,
            force=target.force,
            progress=reporter,
            interrupt=interrupt,
            recorded=recorded,
        )
    if result.finished:  # of several processes, the one that finished
        facts = {**result.record(), "seed": opened.teacher.header.get("seed", 0)}
        console.record(out, facts, where, "digest")
    _report(result, output)


def _mirrored(
    out: Path, target: TargetOptions, reporter: Progress
) -> AbstractContextManager[Callable[[Shard], None] | None]:
    """Copy each recorded shard to the address in ``--copy-to``, if there is one."""
    if target.copy_to is None:
        return nullcontext()
    from bancache.remote.mirror import mirrored
    from bancache.system.bucket import Bucket

    return mirrored(out, Bucket(target.copy_to), overwrite=target.overwrite, progress=reporter)


def _rank(join: JoinOptions, target: TargetOptions) -> Rank:
    """Return this process's rank: from the flags or the launcher with ``--join``, else the only one."""
    if join.join and target.copy_to is not None:
        raise UsageError(
            "--copy-to works only without --join", hint="copy the finished cache with `bancache push`"
        )
    if join.join and target.overwrite:
        raise UsageError("--join and --overwrite exclude each other", hint="leave out --join or --overwrite")
    if join.join:
        return rank_from_env(os.environ, rank=join.rank, world_size=join.world_size)
    if join.rank is not None or join.world_size is not None:
        raise UsageError("--rank and --world-size need --join", hint="add --join")
    return Rank()


def _bounded(
    out: Path,
    target: TargetOptions,
    opened: teachers.Opened,
    settings: DumpSettings,
    bound: tuple[float, float],
    device: torch.device,
    reporter: Progress,
) -> DumpSettings:
    """Return the settings with the smallest encoding that keeps the bound, (temperature, KL in nats), on a probe.

    A dump that goes on keeps its encoding.
    """
    from bancache.dumping.plan import choose, take_probe, weigh
    from bancache.encodings import KNOWN

    stored = None if target.overwrite else _stored_encoding(out)
    if stored is not None:
        return replace(settings, bound=bound, encoding=stored)
    probe = take_probe(opened.teacher, opened.images, settings, device=device)
    temperature, max_kl = bound
    chosen = choose(weigh(probe, KNOWN), max_kl=max_kl, temperature=temperature)
    reporter.note(
        f"{chosen.encoding}: {chosen.bytes_per_pair:.1f} bytes per pair, mean KL "
        f"{chosen.kl_mean(temperature):.1e} nats at temperature {temperature:g} on {count(len(probe.logits), 'pair')}"
    )
    return replace(settings, bound=bound, encoding=chosen.encoding)


def _batch_size(
    out: Path,
    target: TargetOptions,
    opened: teachers.Opened,
    settings: DumpSettings,
    device: torch.device,
    reporter: Progress,
) -> int:
    """Return the batch size of the cache that is under way, else one that suits the teacher and the device."""
    from bancache.cache.manifest_io import MANIFEST, manifest_of, read_manifest
    from bancache.dumping.batch_size import choose_batch_size
    from bancache.dumping.forward import forward_needs

    if (out / MANIFEST).is_file() and not target.overwrite:
        stored = manifest_of(read_manifest(out)).compute.get("batch_size")
        if isinstance(stored, int):
            return stored
    needs = forward_needs(opened.teacher, opened.images, settings, device)
    return choose_batch_size(opened.teacher, opened.images, settings, needs, device, reporter)


def _stored_encoding(out: Path) -> str | None:
    """Return the encoding of a cache that exists, complete or not."""
    from bancache.cache.info import describe

    return str(describe(out)["encoding"]["name"]) if (out / "manifest.json").is_file() else None


def _default_name(teachers: list[str]) -> Path:
    """Return a cache's default path: next to the first teacher's file, or named after it in the current folder."""
    first, more = teachers[0], f"-and-{len(teachers) - 1}" if len(teachers) > 1 else ""
    if Path(first).is_file():
        return Path(first).with_name(f"{Path(first).stem}{more}.zarr")
    return Path(f"{first.replace(':', '-').replace('/', '-')}{more}.zarr")


def _report(result: DumpResult, output: options.OutputOptions) -> None:
    from bancache.views import ViewSpace

    facts = {key: value for key, value in result.record().items() if key != "kind"}
    facts["bytes_per_pair"] = facts.pop("bytes_per_entry")  # its name in results.jsonl
    size = ViewSpace.from_dict(result.cache.manifest.view_space).size
    rate = f", {facts['images_per_second']:,.0f} images/s" if facts["images_per_second"] else ""
    output.show(
        facts,
        f"{facts['out']}: {count(facts['views'], 'view')}{' (all)' if facts['views'] == size else ''} of "
        f"{count(facts['samples'], 'image')}, {facts['encoding']}, {console.bytes_text(facts['bytes'])}, "
        f"{facts['bytes_per_pair']:.1f} bytes per pair, mean KL {facts['fidelity']['1']['kl_mean']:.1e} nats, "
        f"{facts['seconds']:,.1f} s{rate}",
    )
