"""A dump by the workers of a cluster: one of them decides what binds the cache, all of them do its shards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from bancache.errors import UsageError
from bancache.models.names import is_third_party
from bancache.system.address import Address
from bancache.system.signals import interruptible
from bancache_cli import console
from bancache_cli.teacher_files import with_weights

if TYPE_CHECKING:
    from bancache.cluster.engine import Engine
    from bancache.cluster.fill import Planned
    from bancache.dumping import DumpResult
    from bancache.study.arms_file import StudyFile
    from bancache.study.experiment import Experiment
    from bancache.system.progress import Progress
    from bancache.system.ranks import Rank
    from bancache.system.signals import Interrupt
    from bancache_cli.dump import JoinOptions, TargetOptions
    from bancache_cli.dump_settings import Asked


@dataclass(frozen=True)
class ClusterOptions:
    """Workers that share a dump, or the seeds of a study."""

    workers: Annotated[
        int | None,
        Option(
            min=1,
            help="Start N worker processes here: one a GPU, or sharing the cores (bancache[cluster]).",
            metavar="N",
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        Option(
            help="Use the workers of the Dask scheduler there, such as tls://node1:8786 (bancache[cluster]).",
            metavar="ADDRESS",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.scheduler is not None:
            raise UsageError(
                "--workers starts a cluster, --scheduler uses one", hint="leave out --workers or --scheduler"
            )

    @property
    def asked(self) -> bool:
        """Whether the user wants workers."""
        return self.workers is not None or self.scheduler is not None


def dump_by_workers(
    asked: Asked,
    target: TargetOptions,
    join: JoinOptions,
    out: Path,
    rank: Rank,
    reporter: Progress,
    *,
    cluster: ClusterOptions,
) -> DumpResult:
    """Start or find the workers, and let them do a dump."""
    _require_no_gpu_by_number(asked.device)
    from bancache.cluster.engine import require_dask

    require_dask()
    started = time.monotonic()
    with interruptible() as interrupt, _engine(asked.device, cluster, reporter) as engine:
        from bancache.cluster.fill import ask, dump_by  # torch loads while the workers start

        planned: Planned = ask(
            engine,
            plan,
            _findable(asked),
            tuple(asked.teacher.teacher),
            None if target.overwrite else str(out.absolute()),
            join.mixed_devices,
            progress=reporter,
            interrupt=interrupt,
        )
        for note in planned.notes:
            reporter.note(note)
        for warning in planned.warnings:
            reporter.warn(warning)
        result = dump_by(
            engine,
            planned,
            out,
            overwrite=target.overwrite,
            rank=rank,
            force=target.force,
            mixed=join.mixed_devices,
            progress=reporter,
            interrupt=interrupt,
            started=started,
        )
    if result.finished and not isinstance(out, Address):
        facts = {**result.record(), **planned.facts}
        console.record_from(out, facts, planned.environment, "digest")
    return result


def seeds_by_workers(
    what: Experiment | StudyFile,
    seeds: Sequence[int],
    out: Path,
    device: str,
    deterministic: bool,
    cluster: ClusterOptions,
    more: dict[str, Any],
    reporter: Progress,
    interrupt: Interrupt,
) -> None:
    """Let workers carry out the seeds of a sequence or a study; ``more`` are options of each seed's task."""
    _require_no_gpu_by_number(device)
    with _engine(device, cluster, reporter) as engine:
        from bancache.cluster import seeds as tasks
        from bancache.study.experiment import Experiment

        where: dict[str, Any] = {"out": str(out), "cwd": str(Path.cwd()), "device": device}
        where |= {"deterministic": deterministic, **more}
        if isinstance(what, Experiment):
            task = partial(tasks.generations_of_seed, experiment=what, **where)
        else:
            task = partial(tasks.study_of_seed, file=what, **where)
        tasks.run_seeds(engine, seeds, task, progress=reporter, interrupt=interrupt)


def _engine(device: str, cluster: ClusterOptions, reporter: Progress) -> AbstractContextManager[Engine]:
    from bancache.cluster.engine import local_engine, remote_engine

    if cluster.scheduler is not None:
        return remote_engine(cluster.scheduler, reporter)
    return local_engine(cluster.workers or 1, gpus=device != "cpu", progress=reporter)


def _require_no_gpu_by_number(device: str) -> None:
    if ":" in device:
        raise UsageError(
            f"--device {device} with workers, which have a GPU each",
            hint="choose the GPUs with CUDA_VISIBLE_DEVICES=0,1 before the command",
        )


def _findable(asked: Asked) -> Asked:
    """Return what was asked for with paths that a worker in another folder finds."""
    here = [
        name if is_third_party(name) and not name.endswith(".pt2") else str(Path(name).absolute())
        for name in asked.teacher.teacher
    ]
    weights = asked.teacher.weights and [path.absolute() for path in asked.teacher.weights]
    teacher = replace(asked.teacher, teacher=here, weights=weights)
    if asked.data.data is None:
        return replace(asked, teacher=teacher)
    from bancache.sources.spec import DataSpec

    source = DataSpec(asked.data.data).resolved().source
    return replace(asked, teacher=teacher, data=replace(asked.data, data=source))


def plan(asked: Asked, typed: tuple[str, ...], begun: str | None, mixed: bool) -> Planned:
    """Decide, on a worker, what binds a cache.

    ``typed`` are the teachers' names for the manifest, and ``begun`` the path of a cache that may have been begun.
    """
    from bancache.cluster.tasks import alone

    planned: Planned = alone(_plan, asked, typed, begun, mixed)
    return planned


def _plan(asked: Asked, typed: tuple[str, ...], begun: str | None, mixed: bool) -> Planned:
    from bancache.cluster.fill import Planned
    from bancache.cluster.tasks import Origin, keep_open
    from bancache.dumping.prepare import prepare
    from bancache.system.device import choose_device
    from bancache.system.environment import environment
    from bancache.system.progress import Kept

    heard, device = Kept(), choose_device(asked.device)
    opened, settings = asked.settle(device, heard)
    names, spec = dict(zip(asked.teacher.teacher, typed, strict=True)), opened.spec.resolved()
    members = tuple(replace(member, path=names[member.path]) for member in opened.teacher.members)
    teacher = replace(opened.teacher, path=" + ".join(typed), members=members)
    prepared = prepare(teacher, opened.images, spec, settings, begun, device=device, progress=heard)
    named = with_weights(asked.teacher.teacher, asked.teacher.weights)
    teachers = tuple((name, None if file is None else str(file)) for name, file in named)
    origin = Origin(teachers, spec.source, asked.device, mixed)
    keep_open(origin, prepared.binding.manifest, prepared.forward)
    facts = {"seed": teacher.header.get("seed", 0)}
    notes, warnings, streamed = tuple(heard.notes), tuple(heard.warnings), prepared.forward.renderer.streams
    return Planned(prepared.binding, origin, facts, environment(device), notes, warnings, streamed)
