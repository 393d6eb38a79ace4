"""Runs from start to end, each alone or several side by side on one GPU. A run that was stopped and resumed has the same bits."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass

from bancache.cache.reader import Cache
from bancache.errors import StoppedError
from bancache.loader import Targets
from bancache.models.checkpoint import Checkpoint, load_checkpoint
from bancache.sources.image_set import ImageSet
from bancache.system.batch_memory import free_bytes
from bancache.system.capturing import can_capture
from bancache.system.progress import Progress, Silent, Stage
from bancache.system.signals import Interrupt
from bancache.system.stored import StoredImages
from bancache.system.wording import count
from bancache.training import preflight
from bancache.training.build import make_loader
from bancache.training.cuda_graph import Stepper, captured, make_stepper, why_not
from bancache.training.distributed import ProcessGroup
from bancache.training.epoch_log import EpochLog
from bancache.training.memory import training_needs
from bancache.training.options import TrainerOptions
from bancache.training.run import Run
from bancache.training.session import Session

# Eight WRN-28-2 were 1.93 times as fast together as one after another, and four 1.88 times (docs/log.md).
SIDE_BY_SIDE = 4


@dataclass(frozen=True)
class Job:
    """A run, where it is carried out, and what it learns from beside the labels; see ``train``."""

    run: Run
    options: TrainerOptions
    cache: Cache | None = None
    targets: Targets | None = None


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        checkpoint: The checkpoint, as read from disk.
        fresh: False if the run was complete already and nothing was trained.
    """

    checkpoint: Checkpoint
    fresh: bool


def train(
    run: Run,
    data: ImageSet,
    test: ImageSet,
    options: TrainerOptions,
    *,
    cache: Cache | None = None,
    targets: Targets | None = None,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
    group: ProcessGroup | None = None,
) -> Trained:
    """Train a model to the end, resuming where an earlier call stopped, and write its checkpoint.

    A run for labels comes from ``run_for_labels``, a run for a student from ``run_for_cache``, with the same cache.

    Args:
        run: What to train.
        data: Training images, uint8 (N, H, W, C), with the fingerprint ``run.data_fingerprint``.
        test: Test images of the same size and classes. They are evaluated, and never used to select a model.
        options: Where and how the run is carried out.
        cache: Source of the soft targets; required if ``run`` was made by ``run_for_cache``.
        targets: Soft targets that replace those of the cache, such as ``bancache.models.teacher.OnlineTargets``: a teacher that
            runs at every step, on the student's images.
        progress: Receives every step and epoch.
        interrupt: Checked after every step; a requested stop saves the state first.
        group: The processes that share this run, from ``join_process_group``; by default there is only this one.

    Raises:
        MismatchError: The files at ``out`` belong to another run, or the cache belongs to other images.
        DataError: The two splits differ in image size or classes.
        NonFiniteError: The loss became NaN or infinite.
        BusyError: Another process trains to the same file.
        StorageError: The disk is full, read-only or failing. The last saved state stays.
        StoppedError: A stop was requested in any of the processes. The state is saved.
        UsageError: The processes were started with different runs, or cannot share a batch evenly.
    """
    job, group, progress = Job(run, options, cache, targets), group or ProcessGroup(), progress or Silent()
    with _begun(job, data, test, group, progress) as session:
        if session is not None:
            stepper = make_stepper(session.loader, session.step, options.graph, progress)
            with _stage(progress, [session]) as session.stage:
                for _ in session.work(stepper, interrupt or Interrupt()):
                    stepper.take()
            session.finish()
        return Trained(load_checkpoint(options.checkpoint_path), fresh=session is not None)


def train_side_by_side(
    jobs: Sequence[Job],
    data: ImageSet,
    test: ImageSet,
    *,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> list[Trained]:
    """Train models on the same images, side by side on one GPU where that is possible, else one after another.

    Small models leave a GPU idle between their kernels, and others fill these gaps. Each ends with the bits that it has
    alone. ``seconds`` of a checkpoint is then the time of all. Arguments and errors are those of ``train``.
    """
    progress, interrupt, found = progress or Silent(), interrupt or Interrupt(), list[Trained]()
    for group in _groups(jobs, data, test):
        found += _train_group(group, data, test, progress, interrupt)
    return found


def _groups(jobs: Sequence[Job], data: ImageSet, test: ImageSet) -> list[Sequence[Job]]:
    """Divide jobs into groups of about one size that fit a device's memory together."""
    first, size = jobs[0], 1
    if can_capture(first.options.device) and not isinstance(data.images, StoredImages):
        needs = training_needs(
            first.run.architecture, first.run.recipe, data, test, first.run.space, first.options.device
        )
        fitting = free_bytes(first.options.device) // needs.of(first.run.recipe.batch_size)
        size = max(1, min(SIDE_BY_SIDE, fitting))
    size = -(-len(jobs) // -(-len(jobs) // size))
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]


def _train_group(
    jobs: Sequence[Job], data: ImageSet, test: ImageSet, progress: Progress, interrupt: Interrupt
) -> list[Trained]:
    if len(jobs) > 1:
        try:
            return _side_by_side(jobs, data, test, progress, interrupt)
        except _CannotShareError as error:
            progress.note(f"one model after another: {error}")
    return [
        train(
            job.run,
            data,
            test,
            job.options,
            cache=job.cache,
            targets=job.targets,
            progress=progress,
            interrupt=interrupt,
        )
        for job in jobs
    ]


class _CannotShareError(Exception):
    """Runs cannot share a graph."""


def _side_by_side(
    jobs: Sequence[Job], data: ImageSet, test: ImageSet, progress: Progress, interrupt: Interrupt
) -> list[Trained]:
    with ExitStack() as stack:
        # What one says, all would say.
        told = [progress, *[Silent()] * len(jobs)]
        opened = [
            stack.enter_context(_begun(job, data, test, ProcessGroup(), heard))
            for job, heard in zip(jobs, told, strict=False)
        ]
        if sessions := [session for session in opened if session is not None]:
            with _stage(progress, sessions) as stage:
                for session in sessions:
                    session.stage, session.side_by_side = _Named(stage, session), len(sessions)
                _catch_up(sessions, interrupt)
                _take_together(sessions, _capture(sessions), interrupt)
            for session in sessions:
                session.finish()
        return [
            Trained(load_checkpoint(job.options.checkpoint_path), fresh=session is not None)
            for job, session in zip(jobs, opened, strict=True)
        ]


@contextmanager
def _begun(
    job: Job, data: ImageSet, test: ImageSet, group: ProcessGroup, progress: Progress
) -> Iterator[Session | None]:
    """Check a run, lock its output and resume it; None if it was finished before."""
    run, options = job.run, job.options
    preflight.require_matching_splits(data, test, run.space)
    preflight.require_one_run(run, group)
    with preflight.exclusive_output(options, group):
        finished = preflight.finished_checkpoint(run, options)
        group.require_same(f"the content of {options.out}", finished is not None)
        if finished is not None:
            yield None
            return
        preflight.require_memory(run, data, test, options, job.cache)
        preflight.say_repeated_images(data, test, progress)
        loader = make_loader(
            run, data, options, cache=job.cache, targets=job.targets, progress=progress, rank=group.rank
        )
        if left := len(data) - loader.samples:
            progress.note(
                f"every epoch leaves out {left:,} of {count(len(data), 'image')}, others each time (--keep-last)"
            )
        if run.recipe.batch_size > len(data):
            progress.note(
                f"the batch size {run.recipe.batch_size:,} is more than the {count(len(data), 'image')}: "
                "an epoch is one step of all of them (--batch-size)"
            )
        log_path = options.log_path if group.is_main else None
        with closing(EpochLog(log_path, options.tensorboard)) as log:
            yield Session(run, loader, test, options, group, log, progress)


def _stage(progress: Progress, sessions: Sequence[Session]) -> AbstractContextManager[Stage]:
    run = sessions[0].run
    more = f", {len(sessions)} side by side" if len(sessions) > 1 else ""
    return progress.stage(
        f"train {run.architecture['name']}, generation {run.generation}{more}",
        total=sum(session.images for session in sessions),
        unit="images",
        done=sum(session.images_done for session in sessions),
    )


def _catch_up(sessions: Sequence[Session], interrupt: Interrupt) -> None:
    """Bring all runs to the same step: after a kill, some may have been saved earlier than others."""
    most = max(session.done for session in sessions)
    for session in sessions:
        if session.done < most:
            stepper = make_stepper(session.loader, session.step, session.options.graph, session.progress)
            for _ in session.work(stepper, interrupt, until=most):
                stepper.take()


def _capture(sessions: Sequence[Session]) -> list[Stepper]:
    """Return steppers of which any takes a step of every run."""
    lengths = {(session.loader.steps, session.run.recipe.epochs) for session in sessions}
    reasons = [reason for session in sessions if (reason := why_not(session.run, session.loader))]
    if len(lengths) > 1:
        reasons.append("they differ in steps or epochs")
    if not reasons:
        try:
            return captured([(session.loader, session.step) for session in sessions])
        except RuntimeError as error:  # torch raises it when an operation cannot be captured
            reasons.append(str(error).splitlines()[0])
    raise _CannotShareError(reasons[0])


def _take_together(sessions: Sequence[Session], steppers: Sequence[Stepper], interrupt: Interrupt) -> None:
    seen = _Seen(interrupt)
    working = [session.work(stepper, seen) for session, stepper in zip(sessions, steppers, strict=True)]
    try:
        for _ in zip(*working, strict=True):
            steppers[0].take()
            seen.look()
    except StoppedError:
        for rest in working:  # the first was stopped; the others save the same step
            with suppress(StoppedError):
                next(rest, None)
        raise


class _Seen(Interrupt):
    """What an interrupt said at the last look, so that all runs stop after the same step."""

    def __init__(self, source: Interrupt) -> None:
        super().__init__()
        self._source = source

    def look(self) -> None:
        """Look again."""
        if self._source.requested:
            self.signal_number = self._source.signal_number or signal.SIGTERM


class _Named:
    """A stage that several runs share, whose lines say which of them they are about."""

    def __init__(self, stage: Stage, session: Session) -> None:
        self.advance, self._stage, self._name = stage.advance, stage, session.options.checkpoint_path

    def log(self, text: str) -> None:
        """Print a line."""
        self._stage.log(f"{self._name}: {text}")
