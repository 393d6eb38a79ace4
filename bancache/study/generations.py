"""The born-again sequence: each generation's checkpoint is the next one's teacher, with files as the only memory.

For every seed: gen0 on labels, then for k = 1, 2, …: dump gen(k-1), train gen(k) from that cache. Then, where
they are asked for, the controls: for each student a twin with the same first weights and the same order of
images, taught by labels alone. At the end what the nets say together. Each step finds out from its own file whether it is done, so
the same command goes on after anything, and asking for more adds only what is missing. Processes that work on
different seeds may share a folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from bancache.cache.reader import open_cache
from bancache.dumping import DumpSettings, dump
from bancache.evaluation.ensemble import Member, Panel
from bancache.models.checkpoint import load_checkpoint
from bancache.models.teacher import load_checkpoint_teacher
from bancache.philox import derive_seed
from bancache.report.results import Record, append_once, read_records
from bancache.sources.base import ImageSet
from bancache.study.experiment import Experiment, claim
from bancache.study.sample_views import NAME, write_sample_views
from bancache.system.device import Interrupt, environment
from bancache.system.files import make_directory
from bancache.system.progress import Progress, Silent
from bancache.training import TrainerOptions, run_for_cache, run_for_labels, train
from bancache.training.record import run_record
from bancache.views.renderer import Normalization
from bancache.views.space import ViewSpace

__all__ = ["RESULTS", "Experiment", "run_generations"]

RESULTS = "results.jsonl"


def run_generations(
    study: Experiment,
    out: Path,
    *,
    device: torch.device,
    command: str = "",
    eval_every: int = 1,
    tensorboard: Path | None = None,
    download: bool = False,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> list[Record]:
    """Carry out what of a study is not done yet, and return all its result lines.

    Raises:
        MismatchError: ``out`` holds a study with other settings.
        StoppedError: A stop was asked for; the same call goes on.
    """
    progress, interrupt = progress or Silent(), interrupt or Interrupt()
    make_directory(out)
    claim(study, out)
    data = study.data.open("train", download=download, progress=progress)
    test = study.data.open("test", download=download, progress=progress)
    worker = _Worker(study, out, data, test, device, command, eval_every, tensorboard, progress, interrupt)
    worker.records()  # a damaged results file is refused now, not after the first training
    for seed in study.seeds:
        for generation in range(study.generations + 1):
            worker.train(seed, generation)
            if generation < study.generations:
                worker.dump(seed, generation)
                worker.sheet(seed)
        if study.controls:
            for member in range(1, study.generations + 1):
                worker.control(seed, member)
            worker.control(seed, 1, weight=2)
        worker.compare(seed)
    return worker.records()


@dataclass
class _Worker:
    """Does one step at a time, each of which may have been done before."""

    study: Experiment
    out: Path
    data: ImageSet
    test: ImageSet
    device: torch.device
    command: str
    eval_every: int
    tensorboard: Path | None
    progress: Progress
    interrupt: Interrupt

    def train(self, seed: int, generation: int) -> None:
        """Leave ``gen{generation}.pt`` and its result line."""
        study, path = self.study, self._path(seed, f"gen{generation}.pt")
        own_seed = derive_seed(seed, "generation", generation)
        common = (study.architecture, study.recipe, own_seed, study.data, self.data)
        cache = open_cache(self._path(seed, f"gen{generation - 1}.zarr")) if generation else None
        run = run_for_cache(*common, cache) if cache else run_for_labels(*common, study.views)
        events = self.tensorboard and self.tensorboard / f"seed{seed}" / f"gen{generation}"
        self.progress.note(f"seed {seed}, generation {generation}: {path}")
        trained = train(
            run,
            self.data,
            self.test,
            TrainerOptions(path, self.device, eval_every=self.eval_every, tensorboard=events),
            cache=cache,
            progress=self.progress,
            interrupt=self.interrupt,
        )
        self._record(run_record(trained.checkpoint, path, seed=seed), "weights")

    def dump(self, seed: int, generation: int) -> None:
        """Leave ``gen{generation}.zarr`` and its result line."""
        study, path = self.study, self._path(seed, f"gen{generation}.zarr")
        precision = "bfloat16" if study.recipe.amp else "float32"
        checkpoint = self._path(seed, f"gen{generation}.pt")
        teacher = load_checkpoint_teacher(checkpoint, device=self.device, precision=precision)
        settings = DumpSettings(
            space=ViewSpace.parse(study.views, seed=derive_seed(seed, "cache", generation)),
            num_views=study.num_views,
            encoding=study.encoding,
            batch_size=study.batch_size,
            normalization=Normalization.from_dict(teacher.header["normalisation"]),
            profile=study.profile,
        )
        result = dump(
            teacher,
            self.data,
            study.data,
            path,
            settings,
            device=self.device,
            progress=self.progress,
            interrupt=self.interrupt,
        )
        self._record({**result.record(), "seed": seed}, "digest")

    def sheet(self, seed: int) -> None:
        """Leave a few views of the seed's first cache, and the answers to them, for the page."""
        path = self._path(seed, NAME)
        if not path.exists():
            write_sample_views(open_cache(self._path(seed, "gen0.zarr")), self.data, path)

    def control(self, seed: int, member: int, *, weight: float = 1.0) -> None:
        """Leave the net that is student ``member`` without a teacher, and its result line."""
        study, path = self.study, self._path(seed, _control_file(member, weight))
        own_seed = derive_seed(seed, "generation", member)
        common = (study.architecture, study.recipe, own_seed, study.data, self.data)
        run = run_for_labels(*common, study.views, label_weight=weight)
        self.progress.note(f"seed {seed}, control: {path}")
        trained = train(
            run,
            self.data,
            self.test,
            TrainerOptions(path, self.device, eval_every=self.eval_every),
            progress=self.progress,
            interrupt=self.interrupt,
        )
        role = "labels" if weight == 1 else f"weight-{weight:g}"
        about = {"kind": "control", "role": role, "member": member}
        self._record(run_record(trained.checkpoint, path, seed=seed) | about, "weights", "role")

    def compare(self, seed: int) -> None:
        """Record what the nets of a seed say together: their ensembles, and how often each agrees with older ones."""
        panel = Panel(self.test, self.device, self.study.recipe.amp)
        sequence = [
            self._member(seed, f"BAN-{g}" if g else "baseline", f"gen{g}.pt")
            for g in range(self.study.generations + 1)
        ]
        self._ensembles(seed, panel, "Ens", sequence[1:], loss=self.study.recipe.loss)
        self._agreements(seed, panel, sequence)
        if not self.study.controls:
            return
        labels = [
            self._member(seed, f"labels-{member}", _control_file(member, 1))
            for member in range(1, self.study.generations + 1)
        ]
        self._ensembles(seed, panel, "Ctl", labels, loss="labels")
        self._agreements(seed, panel, [sequence[0], *labels])
        self._agreements(seed, panel, [sequence[0], self._member(seed, "weight-2", _control_file(1, 2))])

    def _ensembles(self, seed: int, panel: Panel, name: str, nets: list[Member], *, loss: str) -> None:
        """Record Ens*2, Ens*3, … of nets 1 to k; generation 0 is no member."""
        for size in range(2, len(nets) + 1):
            record = {
                "kind": "ensemble",
                "name": f"{name}*{size}",
                "seed": seed,
                "model": self.study.architecture["name"],
                "loss": loss,
                "generations" if name == "Ens" else "members": list(range(1, size + 1)),
                "weights": [member.fingerprint for member in nets[:size]],
            }
            if not self._is_known(record, "weights"):
                more = {"test": panel.scores(nets[:size]), "seconds": 0.0}
                self._record(record | more, "weights")

    def _agreements(self, seed: int, panel: Panel, nets: list[Member]) -> None:
        """Record for each net but the first how often it says what those before it say."""
        for place, net in enumerate(nets[1:], 1):
            record = {"kind": "agreement", "seed": seed, "net": net.name, "weights": net.fingerprint}
            if not self._is_known(record, "weights"):
                more = {"with": panel.agreements(net, nets[:place]), "samples": len(self.test)}
                self._record(record | more | {"seconds": 0.0}, "weights")

    def _member(self, seed: int, name: str, file: str) -> Member:
        path = self._path(seed, file)
        return Member(name, path, load_checkpoint(path).fingerprint)

    def records(self) -> list[Record]:
        """Return the result lines so far."""
        path = self.out / RESULTS
        return read_records(path) if path.exists() else []

    def _is_known(self, record: Record, key: str) -> bool:
        return any(all(other.get(k) == record[k] for k in ("kind", key)) for other in self.records())

    def _record(self, record: Record, *keys: str) -> None:
        about = {"command": self.command, "environment": environment(self.device)}
        append_once(self.out / RESULTS, {**record, **about}, *keys)

    def _path(self, seed: int, name: str) -> Path:
        return self.out / f"seed{seed}" / name


def _control_file(member: int, weight: float) -> str:
    """Name the net that is student ``member`` taught by labels alone, counted ``weight`` times."""
    return f"labels{member}.pt" if weight == 1 else f"labels{member}-weight{weight:g}.pt"
