"""``bancache dump``: a teacher's soft targets for every view, on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from bancache.errors import UsageError
from bancache.system.address import Address
from bancache.system.device import check_device_name
from bancache.system.ranks import Rank, rank_from_env
from bancache.system.wording import count
from bancache_cli import console, early, options, teachers
from bancache_cli.dump_settings import Asked, EncodingOptions, kept_choices
from bancache_cli.many import ClusterOptions, dump_by_workers

if TYPE_CHECKING:
    from bancache.dumping import DumpResult
    from bancache.system.progress import Progress


@dataclass(frozen=True)
class TargetOptions:
    """Where a dump writes."""

    out: Annotated[
        Path | None,
        Option(
            help="Folder, or address such as s3://bucket/gen0.zarr (default: next to the teacher, gen0.zarr)."
        ),
    ] = None
    overwrite: options.Overwrite = False
    force: Annotated[bool, Option("--force", help="Start although the disk seems too small.")] = False


@dataclass(frozen=True)
class JoinOptions:
    """Several processes that fill one cache, or the rest of one."""

    join: Annotated[
        bool, Option("--join", help="Share the work with other processes that dump to the same path.")
    ] = False
    rank: Annotated[
        int | None, Option(help="This process's rank (default: from the launcher).", metavar="R")
    ] = None
    world_size: Annotated[
        int | None, Option(help="Number of processes that join (default: from the launcher).", metavar="N")
    ] = None
    mixed_devices: Annotated[
        bool,
        Option(
            "--mixed-devices",
            help="Go on with another kind of device than began the cache; its last bits differ, and the cache says so.",
        ),
    ] = False


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
    cluster: ClusterOptions,
    output: options.OutputOptions,
) -> None:
    """Run a teacher on every view of its training images, and store its soft targets.

    A bancache checkpoint has recorded its data and views; other models need `--data` and `--views`. Several teachers
    are an ensemble, each with its own size and normalization. After a kill, the same command goes on. `--workers 8` shares the
    work among processes of this machine, `--scheduler` among those of a Dask cluster; or run the same command with
    `--join` in each process.

    Example: `bancache dump --teacher gen0.pt --num-views all`
    """
    check_device_name(device)
    rank, out = _rank(join, target), target.out or _default_name(teacher.teacher)
    teachers.check(teacher, views.views, data)
    alone, overwrite = not (join.join or cluster.asked), target.overwrite
    early.require_cache(out, teacher, views, encoding, data, batch_size, alone=alone, overwrite=overwrite)
    begun = None if overwrite else kept_choices(out)
    asked = Asked(teacher, views, encoding, data, batch_size, device, deterministic, begun)
    carry_out = partial(dump_by_workers, cluster=cluster) if cluster.asked else _dump_here
    _report(carry_out(asked, target, join, out, rank, output.reporter()), output)


def _dump_here(
    asked: Asked, target: TargetOptions, join: JoinOptions, out: Path, rank: Rank, reporter: Progress
) -> DumpResult:
    """Do a dump in this process, alone or with others that join."""
    from bancache.dumping import dump as write
    from bancache.system.device import choose_device
    from bancache.system.signals import interruptible

    where = choose_device(asked.device, local=rank.local)
    opened, settings = asked.settle(where, reporter)
    with interruptible() as interrupt:
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
            mixed=join.mixed_devices,
            progress=reporter,
            interrupt=interrupt,
        )
    if result.finished and not isinstance(out, Address):  # of several processes, the one that finished
        facts = {**result.record(), "seed": opened.teacher.header.get("seed", 0)}
        console.record(out, facts, where, "digest")
    return result


def _rank(join: JoinOptions, target: TargetOptions) -> Rank:
    """Return this process's rank: from the flags or the launcher with ``--join``, else the only one."""
    if join.join and target.overwrite:
        raise UsageError("--join and --overwrite exclude each other", hint="leave out --join or --overwrite")
    if join.join:
        return rank_from_env(os.environ, rank=join.rank, world_size=join.world_size)
    if join.rank is not None or join.world_size is not None:
        raise UsageError("--rank and --world-size need --join", hint="add --join")
    return Rank()


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
    if facts["teacher_accuracy"] is not None:  # None in caches of older versions
        rate += f"; teacher right on {facts['teacher_accuracy']:.2%} of views, chance {facts['chance']:.2%}"
    output.show(
        facts,
        f"{facts['out']}: {count(facts['views'], 'view')}{' (all)' if facts['views'] == size else ''} of "
        f"{count(facts['samples'], 'image')}, {facts['encoding']}, {console.bytes_text(facts['bytes'])}, "
        f"{facts['bytes_per_pair']:.1f} bytes per pair, mean KL {facts['fidelity']['1']['kl_mean']:.1e} nats, "
        f"{facts['seconds']:,.1f} s{rate}",
    )
