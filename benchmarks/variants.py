"""One teacher a seed, and students of its answers that differ in one thing alone: what the comparisons share.

Every step finds out from its own file whether it is done, so the same command goes on after anything; processes
that work on different seeds may share a folder. Students of a seed have the same first weights and see the same
images in the same order. A cache of fewer views is a prefix of one of more: view index v of a sample shows the same
view in all of them, and the teacher's answer to it is the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bancache.cache.reader import Cache
from bancache.dumping import DumpSettings, dump
from bancache.models.teacher import load_teacher
from bancache.philox import derive_seed
from bancache.report import generations_table, to_rows, to_text
from bancache.report.results import Record, append_once, read_records
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.environment import environment
from bancache.system.files import make_directory, write_atomically
from bancache.system.progress import Progress
from bancache.training import Recipe, Run, TrainerOptions, run_for_cache, run_for_labels, train
from bancache.training.record import run_record
from bancache.views import ViewSpace
from bancache.views.model_input import Normalization
from benchmarks.harness import RESULTS

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Student:
    """What tells one student from another.

    Attributes:
        name: Of its checkpoint.
        num_views: Of the cache that it is taught from.
        changes: To the comparison's recipe.
    """

    name: str
    num_views: int
    changes: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        data: Training and test images.
        model: The net of the teacher and of all students.
        recipe: Of the teacher, and of the students but for their changes.
        views: Name of the view space.
        encoding: Of the caches.
        students: Those to compare.
    """

    data: DataSpec
    model: str
    recipe: Recipe
    views: str
    encoding: str
    students: tuple[Student, ...]


def options(name: str, question: str) -> argparse.Namespace:
    """Parse what both comparisons are asked."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=question)
    parser.add_argument(
        "--data", default="parquet:../shared/data/cifar100", help="a source, as for the commands"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs") / name, help="a folder; the same one goes on"
    )
    parser.add_argument("--seeds", default="0,1,2", help="numbers separated by commas")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    parser.add_argument("--quick", action="store_true", help="digits, two epochs; figures mean nothing")
    parser.add_argument(
        "--save", action="store_true", help="keep the lines of whole seeds in benchmarks/results/"
    )
    return parser.parse_args()


def compare(
    name: str, comparison: Comparison, asked: argparse.Namespace, progress: Progress | None = None
) -> None:
    """Train what is missing, then print the table."""
    torch.set_num_threads(1)
    make_directory(asked.out)
    images, test = comparison.data.open("train"), comparison.data.open("test")
    worker = _Worker(comparison, asked.out, images, test, f"python -m benchmarks.{name}", progress)
    for seed in (int(part) for part in asked.seeds.split(",")):
        worker.seed(seed)
    records = read_records(asked.out / "results.jsonl")
    if asked.save:
        _save(name, records, students=len(comparison.students))
    table = generations_table(records)
    print("\n".join(map(json.dumps, to_rows(table))) if asked.json else to_text(table))


@dataclass
class _Worker:
    comparison: Comparison
    out: Path
    data: ImageSet
    test: ImageSet
    command: str
    progress: Progress | None

    def seed(self, seed: int) -> None:
        """Leave the teacher of a seed, its caches and its students."""
        what, teacher = self.comparison, self.out / f"seed{seed}" / "teacher.pt"
        architecture = {
            "name": what.model,
            "classes": len(self.data.classes),
            "channels": self.data.images.shape[3],
            "image_size": [self.data.height, self.data.width],
            "dropout": 0.0,
        }
        common = (what.data, self.data)
        labels = run_for_labels(architecture, what.recipe, derive_seed(seed, "teacher"), *common, what.views)
        self._train(labels, teacher, seed)
        for student in what.students:
            cache = self._dump(teacher, seed, student.num_views)
            recipe = replace(what.recipe, **student.changes)
            run = run_for_cache(architecture, recipe, derive_seed(seed, "student"), *common, cache)
            self._train(run, teacher.with_name(f"{student.name}.pt"), seed, cache)

    def _train(self, run: Run, path: Path, seed: int, cache: Cache | None = None) -> None:
        place = TrainerOptions(path, CPU, eval_every=0)
        trained = train(run, self.data, self.test, place, cache=cache, progress=self.progress)
        line = run_record(trained.checkpoint, path, seed=seed)
        self._record({**line, "history": line["history"][-1:]}, "weights")

    def _dump(self, teacher: Path, seed: int, num_views: int) -> Cache:
        what = self.comparison
        net = load_teacher(str(teacher), device=CPU)
        settings = DumpSettings(
            space=ViewSpace.parse(what.views, seed=derive_seed(seed, "cache")),
            num_views=num_views,
            encoding=what.encoding,
            batch_size=256,
            normalization=Normalization.from_dict(net.header["normalisation"]),
        )
        out = teacher.with_name(f"views{num_views}.zarr")
        result = dump(net, self.data, what.data, out, settings, device=CPU, progress=self.progress)
        self._record({**result.record(), "seed": seed}, "digest")
        return result.cache

    def _record(self, record: Record, key: str) -> None:
        about = {"command": self.command, "environment": environment(CPU)}
        append_once(self.out / "results.jsonl", {**record, **about}, key)


def _save(name: str, records: Sequence[Record], *, students: int) -> None:
    """Keep the lines of the seeds whose students are all trained."""
    taught = [record["seed"] for record in records if record["kind"] == "run" and record["generation"]]
    whole = [record for record in records if taught.count(record["seed"]) == students]
    make_directory(RESULTS / name)
    text = "".join(json.dumps(record) + "\n" for record in whole)
    write_atomically(RESULTS / name / "results.jsonl", text.encode())
