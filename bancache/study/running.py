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
from bancache.encodings import default_encoding, parse_encoding
from bancache.errors import UsageError
from bancache.evaluation.members import Member
from bancache.loader.changed_targets import require_changeable
from bancache.models import share_layers
from bancache.models.build import build_skeleton
from bancache.models.checkpoint import load_checkpoint
from bancache.models.ensemble import ensemble
from bancache.models.teacher import Teacher, arguments_of, load_checkpoint_teacher
from bancache.philox import derive_seed
from bancache.report.results import RESULTS, Record, append_once, read_records
from bancache.sources.image_set import ImageSet
from bancache.study.arms import Arm, Given, Study
from bancache.study.comparing import compare
from bancache.study.given import require_weights
from bancache.study.sample_views import NAME, write_sample_views
from bancache.system.capturing import can_capture
from bancache.system.environment import environment
from bancache.system.progress import Progress, Silent
from bancache.system.signals import Interrupt
from bancache.training import Run, TrainerOptions, run_for_cache, run_for_labels
from bancache.training.build import teacher_file
from bancache.training.defaults import default_share_layers
from bancache.training.loop import Job, train_side_by_side
from bancache.training.record import run_record
from bancache.views.several_sizes import distinct
from bancache.views.space import ViewSpace

# A teacher, and height and width of the views that it sees.
Opened = tuple[Teacher, tuple[int, int]]


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


def check_arms(study: Study) -> None:
    """Refuse what would otherwise be refused after hours, when the first student begins.

    Raises:
        MissingExtraError: A model needs timm and it is not installed.
        UsageError: A model cannot be built or has no layers to share, the encoding is not accurate enough at a temperature, or
            targets need one label for each view.
    """
    classes, space = study.architecture["classes"], ViewSpace.parse(study.views)
    encoding = parse_encoding(study.encoding, classes)
    for arm in (arm for arm in study.arms if arm.trains):
        model, hottest = build_skeleton(**arguments_of(study.architecture_of(arm))), arm.recipe.temperature
        if arm.teacher is None:
            continue
        if hottest > encoding.max_temperature:
            raise UsageError(
                f"{arm.name}: encoding '{encoding.name}' supports temperatures up to {encoding.max_temperature:g}, not "
                f"{hottest:g}",
                hint=f"use encoding {default_encoding(hottest, classes)}, or a lower temperature",
            )
        require_changeable(arm.recipe.targets, space.layout)
        teacher = study.by_name[arm.teacher]
        if arm.share_layers and teacher.trains:
            taught = build_skeleton(**arguments_of(study.architecture_of(teacher)))
            share_layers(model, taught, arm.share_layers)


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
    opened: dict[str, Opened] = field(default_factory=dict)

    def run(self, seeds: Sequence[int]) -> None:
        """Train all arms of some seeds, dump what their students need, then compare the models."""
        models = [arm for arm in self.study.arms if arm.trains]
        caches: dict[tuple[int, str], Cache] = {}
        # Those that may train side by side on a GPU: of one teacher, one model, and as long.
        for (teacher, *_), group in groupby(models, lambda arm: (arm.teacher, arm.model, arm.recipe.epochs)):
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
                # In checkpoints, generations count from the first of all ancestors, which may be older than the study.
                record["generation"] = arm.generation
                self.record({**record, **arm.line}, "weights", *({"role", "name"} & set(arm.line)))

    def _job(self, seed: int, arm: Arm, cache: Cache | None) -> Job:
        events = self.place.tensorboard and Path(self.place.tensorboard) / f"seed{seed}" / arm.file
        options = TrainerOptions(
            self._path(seed, f"{arm.file}.pt"),
            self.place.device,
            eval_every=self.place.eval_every,
            tensorboard=events,
            teacher=None if cache is None else teacher_file(cache),
        )
        return Job(self._run(seed, arm, cache), options, cache)

    def _run(self, seed: int, arm: Arm, cache: Cache | None) -> Run:
        study, own_seed = self.study, derive_seed(seed, "generation", arm.start)
        architecture = study.architecture_of(arm)
        common = (architecture, arm.recipe, own_seed, study.data, self.data)
        if cache is not None:
            taught = cache.manifest.teacher
            usual = default_share_layers(architecture["name"], taught["architecture"]["name"])
            share = arm.share_layers or ("none" if "members" in taught else usual)
            return run_for_cache(*common, cache, share_layers=share)
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
        teacher, size = self._teacher(seed, arm)
        assert teacher.input is not None
        settings = DumpSettings(
            space=self._space(seed, arm.generation),
            num_views=study.num_views,
            encoding=study.encoding,
            batch_size=study.batch_size,
            normalization=teacher.input.normalization,
            profile=study.profile,
            size=size,
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
        about = {"seed": seed, "teacher": arm.name, "generation": arm.generation}
        self.record({**result.record(), **about}, "digest")
        return result.cache

    def _teacher(self, seed: int, arm: Arm) -> Opened:
        """Return the teacher that an arm is: one that was given, a model of the study, or the ensemble of several."""
        if arm.given is not None:
            return self._given(arm.name, arm.given)
        if arm.members:
            each = [self._teacher(seed, self.study.by_name[name]) for name in arm.members]
            sizes = [size for _, size in each]
            return ensemble([teacher for teacher, _ in each], sizes=sizes), distinct(sizes)[-1]
        height, width = self.study.architecture["image_size"]
        precision = "bfloat16" if self.study.amp else "float32"
        path = self._path(seed, f"{arm.file}.pt")
        return load_checkpoint_teacher(path, device=self.place.device, precision=precision), (height, width)

    def _given(self, name: str, given: Given) -> Opened:
        if name not in self.opened:
            teacher, size = given.open(self.data, self.place.device)
            require_weights(teacher.path, teacher.fingerprint, given.fingerprint)
            self.opened[name] = teacher, size
        return self.opened[name]

    def _compare(self, seed: int) -> None:
        """Record what only finished models say: ensembles, given teachers, and how far models are from others."""
        found: dict[str, Member] = {}

        def member(name: str) -> Member:
            if name not in found:
                arm, path = self.study.by_name[name], self._path(seed, f"{self.study.by_name[name].file}.pt")
                if arm.members:
                    parts = tuple(map(member, arm.members))
                    found[name] = Member(name, "+".join(part.fingerprint for part in parts), parts)
                elif arm.given is not None:
                    opened = self._given(name, arm.given)
                    found[name] = Member(name, opened[0].fingerprint, opened)
                else:
                    found[name] = Member(name, load_checkpoint(path).fingerprint, path)
            return found[name]

        compare(self.study, seed, member, (self.data, self.test), self.place.device, self)

    def record(self, record: Record, *keys: str) -> None:
        """Append a result line, unless one of its kind has the same values of ``keys``."""
        about = {"command": self.place.command, "environment": environment(self.place.device)}
        append_once(self.out / RESULTS, {**record, **about}, *keys)

    def _path(self, seed: int, name: str) -> Path:
        return self.out / f"seed{seed}" / name
