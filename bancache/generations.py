"""The born-again sequence: each generation's checkpoint is the next one's teacher, with files as the only memory.

For every seed: gen0 on labels, then for k = 1, 2, …: dump gen(k-1), train gen(k) from that cache. At the end
the ensembles. Each step finds out from its own file whether it is done, so the same command goes on after
anything, and asking for more seeds or generations adds only what is missing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bancache import configs
from bancache.cache.reader import open_cache
from bancache.checkpoint import load_checkpoint
from bancache.dump import DumpSettings, dump
from bancache.errors import MismatchError, UsageError
from bancache.evaluate import ensemble, predict, score
from bancache.files import make_directory
from bancache.philox import derive_seed
from bancache.progress import Progress, Silent
from bancache.results import Record, append_once, read_records
from bancache.runtime import Interrupt, environment
from bancache.sources.base import ImageSet
from bancache.sources.spec import DataSpec
from bancache.teacher import build_from, load_teacher
from bancache.train import Place, Recipe, run_for_cache, run_for_labels, train
from bancache.train.record import run_record
from bancache.views.apply import Normalisation
from bancache.views.space import ViewSpace

RESULTS, SETTINGS = "results.jsonl", "run.toml"


@dataclass(frozen=True)
class Study:
    """What a sequence consists of.

    Attributes:
        data: Training and test images.
        architecture: Name and arguments of the net, the same in every generation.
        recipe: Hyper-parameters, the same in every generation; the loss is the students'.
        views: Name of the view space.
        num_views: Views stored of each sample.
        encoding: Of the caches.
        batch_size: Views a forward pass of the dump.
        generations: Students after generation 0.
        seeds: Repetitions, each from its own generation 0.
    """

    data: DataSpec
    architecture: dict[str, Any]
    recipe: Recipe
    views: str
    num_views: int
    encoding: str
    batch_size: int
    generations: int
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.generations < 1 or not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise UsageError(
                f"{self.generations} generations and seeds {self.seeds} make no sequence",
                hint="give at least one generation, and seeds that differ",
            )

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """Return the settings as the tables of run.toml."""
        own = ("views", "num_views", "encoding", "batch_size", "generations", "seeds")
        return {
            "data": self.data.to_dict(),
            "model": self.architecture,
            "recipe": configs.to_dict(self.recipe),
            "sequence": {key: getattr(self, key) for key in own},
        }


def run_study(
    study: Study,
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
    _claim(study, out)
    data = study.data.open("train", download=download, progress=progress)
    test = study.data.open("test", download=download, progress=progress)
    worker = _Worker(study, out, data, test, device, command, eval_every, tensorboard, progress, interrupt)
    worker.records()  # a damaged results file is refused now, not after the first training
    for seed in study.seeds:
        for generation in range(study.generations + 1):
            worker.train(seed, generation)
            if generation < study.generations:
                worker.dump(seed, generation)
        worker.ensembles(seed)
    return worker.records()


def _claim(study: Study, out: Path) -> None:
    """Write run.toml, or compare with the one that is there; more seeds or generations may come later."""
    path, tables = out / SETTINGS, study.to_tables()
    if path.exists():
        stored = configs.read_toml(path)
        for title, table in tables.items():
            for key, value in table.items():
                before = stored.get(title, {}).get(key)
                plain = list(value) if isinstance(value, tuple) else value
                if key not in ("seeds", "generations") and before != plain:
                    raise MismatchError.between(
                        f"{path}: {title}.{key}",
                        stored=before,
                        given=plain,
                        hint="use the same settings or another --out",
                    )
    configs.write_toml(path, tables)


@dataclass
class _Worker:
    """Does one step at a time, each of which may have been done before."""

    study: Study
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
            Place(path, self.device, eval_every=self.eval_every, tensorboard=events),
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
        teacher = load_teacher(str(checkpoint), device=self.device, precision=precision)
        settings = DumpSettings(
            space=ViewSpace.parse(study.views, seed=derive_seed(seed, "cache", generation)),
            num_views=study.num_views,
            encoding=study.encoding,
            batch_size=study.batch_size,
            normalisation=Normalisation.from_dict(teacher.header["normalisation"]),
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

    def ensembles(self, seed: int) -> None:
        """Record Ens*2, Ens*3, … of generations 1 to k; generation 0 is not a member."""
        paths = [self._path(seed, f"gen{g}.pt") for g in range(1, self.study.generations + 1)]
        checkpoints = [load_checkpoint(path) for path in paths]
        predictions = []
        for size, checkpoint in enumerate(checkpoints, 1):
            normalisation = Normalisation.from_dict(checkpoint.header["normalisation"])
            model = build_from(checkpoint).to(self.device)
            amp = self.study.recipe.amp
            predictions.append(predict(model, self.test, normalisation, device=self.device, amp=amp))
            if size < 2:
                continue
            scores = score(ensemble(predictions), self.test.labels)
            record = {
                "kind": "ensemble",
                "name": f"Ens*{size}",
                "seed": seed,
                "model": self.study.architecture["name"],
                "loss": self.study.recipe.loss,
                "generations": list(range(1, size + 1)),
                "weights": [member.fingerprint for member in checkpoints[:size]],
                "test": asdict(scores),
                "seconds": 0.0,
            }
            self._record(record, "weights")

    def records(self) -> list[Record]:
        """Return the result lines so far."""
        path = self.out / RESULTS
        return read_records(path) if path.exists() else []

    def _record(self, record: Record, key: str) -> None:
        about = {"command": self.command, "environment": environment(self.device)}
        append_once(self.out / RESULTS, {**record, **about}, key)

    def _path(self, seed: int, name: str) -> Path:
        return self.out / f"seed{seed}" / name
