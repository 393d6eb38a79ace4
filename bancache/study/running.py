"""Runs the arms of a study: trains, dumps, compares.

The files are the only state. Each step checks its own file, so the same call resumes after any interruption, and new
arms and seeds add only what is missing. Processes that work on different seeds may share a folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import torch

from bancache.cache.reader import Cache
from bancache.dumping import DumpSettings, dump
from bancache.evaluation.checkpoints import Member, MemberPredictions
from bancache.models.checkpoint import load_checkpoint
from bancache.models.teacher import load_checkpoint_teacher
from bancache.philox import derive_seed
from bancache.report.results import RESULTS, Record, append_once, read_records
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.study.arms import Arm, Study
from bancache.study.sample_views import NAME, write_sample_views
from bancache.system.capturing import can_capture
from bancache.system.device import environment
from bancache.system.progress import Progress, Silent
from bancache.system.signals import Interrupt
from bancache.training import Run, TrainerOptions, run_for_cache, run_for_labels
from bancache.training.loop import Job, train_side_by_side
from bancache.training.record import run_record
from bancache.views.model_input import Normalization
from bancache.views.space import ViewSpace


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how a study is carried out; nothing here changes a model on a CPU.

    Attributes:
        device: Device of the models.
        command: The command line, for the result lines.
        eval_every: Epochs between two evaluations on the test split; 0: only at the end.
        tensorboard: A directory for TensorBoard events.
        download: Download a torchvision data set if it is missing.
    """

    device: torch.device
    command: str = ""
    eval_every: int = 1
    tensorboard: str | os.PathLike[str] | None = None
    download: bool = False
    progress: Progress = field(default_factory=Silent)
    interrupt: Interrupt = field(default_factory=Interrupt)


def open_splits(data: DataSpec, place: Place) -> tuple[ImageSet, ImageSet]:
    """Open the training and the test images."""
    return (
        data.open("train", download=place.download, progress=place.progress),
        data.open("test", download=place.download, progress=place.progress),
    )


def run_arms(study: Study, splits: tuple[ImageSet, ImageSet], out: Path, place: Place) -> list[Record]:
    """Carry out the part of a study that is not done yet in its folder, and return all result lines there."""
    steps = _Steps(study, out, *splits, place)
    steps.records()  # a damaged results file is refused before the first training
    # On a GPU, the models of all seeds train side by side.
    groups = [study.seeds] if can_capture(place.device) else [(seed,) for seed in study.seeds]
    for seeds in groups:
        steps.run(seeds)
    return steps.records()


@dataclass(frozen=True)
class _Steps:
    """The steps of a study. Each returns at once if it has been done."""

    study: Study
    out: Path
    data: ImageSet
    test: ImageSet
    place: Place

    def run(self, seeds: Sequence[int]) -> None:
        """Train all arms of some seeds, dump what their students need, then compare the models."""
        models = [arm for arm in self.study.arms if not arm.members]
        caches: dict[tuple[int, str], Cache] = {}
        # Those that may train side by side on a GPU: of one teacher, and as long.
        for (teacher, _), group in groupby(models, lambda arm: (arm.teacher, arm.recipe.epochs)):
            if teacher is not None and (seeds[0], teacher) not in caches:
                taught = {seed: self._dump(seed, self.study.by_name[teacher]) for seed in seeds}
                if not caches:
                    self._show_views(taught)
                caches |= {(seed, teacher): cache for seed, cache in taught.items()}
            self._train([(seed, arm, caches.get((seed, teacher or ""))) for arm in group for seed in seeds])
        for seed in seeds:
            self._compare(seed)

    def records(self) -> list[Record]:
        """Return the result lines so far."""
        path = self.out / RESULTS
        return read_records(path) if path.exists() else []

    def _train(self, models: Sequence[tuple[int, Arm, Cache | None]]) -> None:
        """Train models of seeds and arms, and record them."""
        place = self.place
        for group in [models] if can_capture(place.device) else [[model] for model in models]:
            for seed, arm, _ in group:
                place.progress.log(f"seed {seed}, {arm.name}: {self._path(seed, f'{arm.file}.pt')}")
            jobs = [self._job(*model) for model in group]
            found = train_side_by_side(
                jobs, self.data, self.test, progress=place.progress, interrupt=place.interrupt
            )
            for (seed, arm, _), job, trained in zip(group, jobs, found, strict=True):
                record = run_record(trained.checkpoint, job.options.out, seed=seed)
                self._record({**record, **arm.line}, "weights", *({"role", "name"} & set(arm.line)))

    def _job(self, seed: int, arm: Arm, cache: Cache | None) -> Job:
        events = self.place.tensorboard and Path(self.place.tensorboard) / f"seed{seed}" / arm.file
        options = TrainerOptions(
            self._path(seed, f"{arm.file}.pt"),
            self.place.device,
            eval_every=self.place.eval_every,
            tensorboard=events,
        )
        return Job(self._run(seed, arm, cache), options, cache)

    def _run(self, seed: int, arm: Arm, cache: Cache | None) -> Run:
        study, own_seed = self.study, derive_seed(seed, "generation", arm.start)
        common = (study.architecture, arm.recipe, own_seed, study.data, self.data)
        if cache is not None:
            return run_for_cache(*common, cache)
        run = run_for_labels(*common, study.views, label_weight=arm.label_weight)
        if arm.views_of is None:
            return run
        return replace(run, space=self._space(seed, arm.views_of), num_views=study.num_views)

    def _space(self, seed: int, generation: int) -> ViewSpace:
        """Return the views that the caches of a generation hold."""
        return ViewSpace.parse(self.study.views, seed=derive_seed(seed, "cache", generation))

    def _show_views(self, caches: Mapping[int, Cache]) -> None:
        for seed, cache in caches.items():
            if not (path := self._path(seed, NAME)).exists():
                write_sample_views(cache, self.data, path)

    def _dump(self, seed: int, arm: Arm) -> Cache:
        """Write the cache of an arm, record it, and return it."""
        study, place = self.study, self.place
        teacher = load_checkpoint_teacher(
            self._path(seed, f"{arm.file}.pt"),
            device=place.device,
            precision="bfloat16" if study.amp else "float32",
        )
        height, width = study.architecture["image_size"]
        settings = DumpSettings(
            space=self._space(seed, arm.generation),
            num_views=study.num_views,
            encoding=study.encoding,
            batch_size=study.batch_size,
            normalization=Normalization.from_dict(teacher.header["normalisation"]),
            profile=study.profile,
            size=(height, width),
        )
        result = dump(
            teacher,
            self.data,
            study.data,
            self._path(seed, f"{arm.file}.zarr"),
            settings,
            device=place.device,
            progress=place.progress,
            interrupt=place.interrupt,
        )
        self._record({**result.record(), "seed": seed}, "digest")
        return result.cache

    def _compare(self, seed: int) -> None:
        """Record the ensembles of a seed's models, and the agreement of models with others."""
        study = self.study
        predictions = MemberPredictions(self.test, self.place.device, study.amp)
        found: dict[str, Member] = {}

        def member(name: str) -> Member:
            if name not in found:
                path = self._path(seed, f"{study.by_name[name].file}.pt")
                found[name] = Member(name, path, load_checkpoint(path).fingerprint)
            return found[name]

        for arm in study.arms:
            if arm.members:
                self._ensemble(seed, arm, predictions, [member(name) for name in arm.members])
            elif arm.beside:
                self._agreement(seed, predictions, member(arm.name), [member(name) for name in arm.beside])

    def _ensemble(
        self, seed: int, arm: Arm, predictions: MemberPredictions, members: Sequence[Member]
    ) -> None:
        record = {
            "kind": arm.line["kind"],
            "name": arm.name,
            "seed": seed,
            "model": self.study.architecture["name"],
            **arm.line,
            "weights": [member.fingerprint for member in members],
        }
        if not self._is_known(record, "name"):
            self._record(record | {"test": predictions.scores(members), "seconds": 0.0}, "weights", "name")

    def _agreement(
        self, seed: int, predictions: MemberPredictions, member: Member, others: Sequence[Member]
    ) -> None:
        record = {"kind": "agreement", "seed": seed, "net": member.name, "weights": member.fingerprint}
        if not self._is_known(record, "net"):
            more = {"with": predictions.agreements(member, others), "samples": len(self.test)}
            self._record(record | more | {"seconds": 0.0}, "weights", "net")

    def _is_known(self, record: Record, name: str) -> bool:
        keys = ("kind", "weights", name)
        return any(all(other.get(key) == record[key] for key in keys) for other in self.records())

    def _record(self, record: Record, *keys: str) -> None:
        about = {"command": self.place.command, "environment": environment(self.place.device)}
        append_once(self.out / RESULTS, {**record, **about}, *keys)

    def _path(self, seed: int, name: str) -> Path:
        return self.out / f"seed{seed}" / name
