"""The born-again sequence: the checkpoint of each generation is the teacher of the next one.

The files are the only state. Each step checks its own file, so the same command resumes after any interruption, and
larger settings add only what is missing. Processes that work on different seeds may share a folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bancache.cache.reader import Cache
from bancache.dumping import DumpSettings, dump
from bancache.evaluation.checkpoints import Member, MemberPredictions
from bancache.models.checkpoint import load_checkpoint
from bancache.models.teacher import load_checkpoint_teacher
from bancache.philox import derive_seed
from bancache.report.results import Record, append_once, read_records
from bancache.sources.image_set import ImageSet
from bancache.study.experiment import Experiment, claim
from bancache.study.sample_views import NAME, write_sample_views
from bancache.system.capturing import can_capture
from bancache.system.device import environment
from bancache.system.files import make_directory
from bancache.system.progress import Progress, Silent
from bancache.system.signals import Interrupt
from bancache.training import Run, TrainerOptions, run_for_cache, run_for_labels
from bancache.training.loop import Job, train_side_by_side
from bancache.training.recipe import loss_label
from bancache.training.record import run_record
from bancache.views.model_input import Normalization
from bancache.views.space import ViewSpace

__all__ = ["RESULTS", "Experiment", "run_generations"]

RESULTS = "results.jsonl"


def run_generations(
    experiment: Experiment,
    out: str | os.PathLike[str],
    *,
    device: torch.device,
    command: str = "",
    eval_every: int = 1,
    tensorboard: str | os.PathLike[str] | None = None,
    download: bool = False,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> list[Record]:
    """Carry out the part of an experiment that is not done yet, and return all its result lines.

    ``out`` is a folder for run.toml, results.jsonl and one folder per seed. ``command`` is the command line, for the
    result lines. The other options are those of ``train`` and ``dump``.
    """
    out, progress = Path(out), progress or Silent()
    make_directory(out)
    claim(experiment, out)
    sequence = _Sequence(
        experiment=experiment,
        out=out,
        data=experiment.data.open("train", download=download, progress=progress),
        test=experiment.data.open("test", download=download, progress=progress),
        device=device,
        command=command,
        eval_every=eval_every,
        tensorboard=None if tensorboard is None else Path(tensorboard),
        progress=progress,
        interrupt=interrupt or Interrupt(),
    )
    sequence.records()  # a damaged results file is refused before the first training
    # On a GPU, the models of all seeds train side by side.
    groups = [experiment.seeds] if can_capture(device) else [(seed,) for seed in experiment.seeds]
    for seeds in groups:
        sequence.run(seeds)
    return sequence.records()


@dataclass(frozen=True)
class _Training:
    """A model of the sequence to train; ``about`` changes its result line, and ``keys`` tell it from others."""

    job: Job
    seed: int
    about: dict[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ("weights",)


@dataclass(frozen=True, kw_only=True)
class _Sequence:
    """The steps of an experiment. Each returns at once if it has been done."""

    experiment: Experiment
    out: Path
    data: ImageSet
    test: ImageSet
    device: torch.device
    command: str
    eval_every: int
    tensorboard: Path | None
    progress: Progress
    interrupt: Interrupt

    def run(self, seeds: Sequence[int]) -> None:
        """Train and dump all generations of some seeds, then their controls, then compare the models."""
        last = self.experiment.generations
        self._train([self._model(seed, 0) for seed in seeds])
        for generation in range(1, last + 1):
            caches = {seed: self._dump(seed, generation - 1) for seed in seeds}
            if generation == 1:
                self._show_views(caches)
            self._train([self._model(seed, generation, cache) for seed, cache in caches.items()])
        if self.experiment.controls:
            weights = [*((member, 1.0) for member in range(1, last + 1)), (1, 2.0)]
            self._train([self._control(seed, *each) for each in weights for seed in seeds])
        for seed in seeds:
            self._compare(seed)

    def records(self) -> list[Record]:
        """Return the result lines so far."""
        path = self.out / RESULTS
        return read_records(path) if path.exists() else []

    def _model(self, seed: int, generation: int, cache: Cache | None = None) -> _Training:
        """Return the training of ``gen{generation}.pt``, from a cache unless it is generation 0."""
        path = self._path(seed, f"gen{generation}.pt")
        self.progress.log(f"seed {seed}, generation {generation}: {path}")
        run = self._run(seed, generation, cache)
        events = self.tensorboard and self.tensorboard / f"seed{seed}" / f"gen{generation}"
        return _Training(self._job(run, path, cache, events), seed)

    def _control(self, seed: int, member: int, weight: float) -> _Training:
        """Return the training of the label-only baseline of student ``member``."""
        path = self._path(seed, _control_file(member, weight))
        self.progress.log(f"seed {seed}, control: {path}")
        role = "labels" if weight == 1 else f"weight-{weight:g}"
        run = self._run(seed, member, weight=weight)
        about = {"kind": "control", "role": role, "member": member}
        return _Training(self._job(run, path), seed, about, ("weights", "role"))

    def _run(self, seed: int, generation: int, cache: Cache | None = None, *, weight: float = 1.0) -> Run:
        """Return the run with the initial weights and the sample order of a generation, on labels without a cache."""
        experiment, own_seed = self.experiment, derive_seed(seed, "generation", generation)
        common = (experiment.architecture, experiment.recipe, own_seed, experiment.data, self.data)
        if cache is not None:
            return run_for_cache(*common, cache)
        return run_for_labels(*common, experiment.views, label_weight=weight)

    def _job(self, run: Run, path: Path, cache: Cache | None = None, events: Path | None = None) -> Job:
        return Job(
            run,
            TrainerOptions(path, self.device, eval_every=self.eval_every, tensorboard=events),
            cache,
        )

    def _train(self, trainings: Sequence[_Training]) -> None:
        """Train models, and record them."""
        groups = [trainings] if can_capture(self.device) else [[training] for training in trainings]
        for group in groups:
            jobs = [training.job for training in group]
            found = train_side_by_side(
                jobs, self.data, self.test, progress=self.progress, interrupt=self.interrupt
            )
            for training, trained in zip(group, found, strict=True):
                record = run_record(trained.checkpoint, training.job.options.out, seed=training.seed)
                self._record(record | training.about, *training.keys)

    def _show_views(self, caches: Mapping[int, Cache]) -> None:
        for seed, cache in caches.items():
            if not (path := self._path(seed, NAME)).exists():
                write_sample_views(cache, self.data, path)

    def _dump(self, seed: int, generation: int) -> Cache:
        """Write ``gen{generation}.zarr``, record it, and return it."""
        experiment, path = self.experiment, self._path(seed, f"gen{generation}.zarr")
        teacher = load_checkpoint_teacher(
            self._path(seed, f"gen{generation}.pt"),
            device=self.device,
            precision="bfloat16" if experiment.recipe.amp else "float32",
        )
        settings = DumpSettings(
            space=ViewSpace.parse(experiment.views, seed=derive_seed(seed, "cache", generation)),
            num_views=experiment.num_views,
            encoding=experiment.encoding,
            batch_size=experiment.batch_size,
            normalization=Normalization.from_dict(teacher.header["normalisation"]),
            profile=experiment.profile,
            size=self._size,
        )
        result = dump(
            teacher,
            self.data,
            experiment.data,
            path,
            settings,
            device=self.device,
            progress=self.progress,
            interrupt=self.interrupt,
        )
        self._record({**result.record(), "seed": seed}, "digest")
        return result.cache

    @property
    def _size(self) -> tuple[int, int]:
        height, width = self.experiment.architecture["image_size"]
        return height, width

    def _compare(self, seed: int) -> None:
        """Record the ensembles of a seed's models, and the agreement of each model with the earlier ones."""
        predictions = MemberPredictions(self.test, self.device, self.experiment.recipe.amp)
        numbers = range(1, self.experiment.generations + 1)
        baseline = self._member(seed, "baseline", "gen0.pt")
        students = [self._member(seed, f"BAN-{k}", f"gen{k}.pt") for k in numbers]
        self._ensembles(seed, predictions, "Ens", students)
        self._agreements(seed, predictions, [baseline, *students])
        if self.experiment.controls:
            controls = [self._member(seed, f"labels-{k}", _control_file(k, 1)) for k in numbers]
            self._ensembles(seed, predictions, "Ctl", controls)
            self._agreements(seed, predictions, [baseline, *controls])
            doubled = self._member(seed, "weight-2", _control_file(1, 2))
            self._agreements(seed, predictions, [baseline, doubled])

    def _ensembles(
        self, seed: int, predictions: MemberPredictions, name: str, members: Sequence[Member]
    ) -> None:
        """Record the ensembles ``name*2``, ``name*3``, … of members 1 to k; generation 0 is not a member."""
        taught = name == "Ens"
        for size in range(2, len(members) + 1):
            record = {
                "kind": "ensemble",
                "name": f"{name}*{size}",
                "seed": seed,
                "model": self.experiment.architecture["name"],
                "loss": loss_label(self.experiment.to_tables()["recipe"]) if taught else "labels",
                "generations" if taught else "members": list(range(1, size + 1)),
                "weights": [member.fingerprint for member in members[:size]],
            }
            if not self._is_known(record):
                more = {"test": predictions.scores(members[:size]), "seconds": 0.0}
                self._record(record | more, "weights")

    def _agreements(self, seed: int, predictions: MemberPredictions, members: Sequence[Member]) -> None:
        """Record for each member after the first its agreement with all members before it."""
        for index, member in enumerate(members[1:], 1):
            record = {"kind": "agreement", "seed": seed, "net": member.name, "weights": member.fingerprint}
            if not self._is_known(record):
                more = {"with": predictions.agreements(member, members[:index]), "samples": len(self.test)}
                self._record(record | more | {"seconds": 0.0}, "weights")

    def _member(self, seed: int, name: str, file: str) -> Member:
        path = self._path(seed, file)
        return Member(name, path, load_checkpoint(path).fingerprint)

    def _is_known(self, record: Record) -> bool:
        keys = ("kind", "weights")
        return any(all(other.get(key) == record[key] for key in keys) for other in self.records())

    def _record(self, record: Record, *keys: str) -> None:
        about = {"command": self.command, "environment": environment(self.device)}
        append_once(self.out / RESULTS, {**record, **about}, *keys)

    def _path(self, seed: int, name: str) -> Path:
        return self.out / f"seed{seed}" / name


def _control_file(member: int, weight: float) -> str:
    """Name the checkpoint of the label-only baseline of student ``member``, with its weight unless it is 1."""
    return f"labels{member}.pt" if weight == 1 else f"labels{member}-weight{weight:g}.pt"
