"""Which learning rate and weight decay suit each arm of the study? Chosen on training images that no arm trains on.

The arms train on the first images of each class, like the study's, and are judged on the next ones of each class. From
the common point on, an arm's learning rate is halved and doubled until its best value has a worse one on either side, then
its weight decay at that rate. ``labels`` comes first: its best point is the common one, which the teacher has, too.

Every round is a study in ``--out``, so the same command goes on after a kill. 13 arms take hours on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bancache.cache.reader import open_cache
from bancache.report.results import read_records
from bancache.sources.spec import DataSpec
from bancache_cli import main as bancache
from benchmarks.harness import RESULTS, commit

DATA = "parquet:../shared/data/cifar100"
PER_CLASS = 50
# A seed that the study does not have.
SEED = 100
# The learning rate and weight decay where the search begins.
START = (0.2, 5e-4)
HEAD = f"""
[study]
seeds = [{SEED}]
views = "crop4-flip"
num_views = 20

[model]
name = "resnet-8"

[recipe]
preset = "onecycle"
epochs = 20
batch_size = 128
"""

Point = tuple[float, float]

# One of each family: the second and third models of an ensemble take the values of the first.
STUDENTS = {
    "half": "loss_scale = 0.5",
    "teacher-alone": 'loss = "ban"',
    "smooth-05": 'targets = "smooth0.05"',
    "smooth-10": 'targets = "smooth0.1"',
    "smooth-20": 'targets = "smooth0.2"',
    "max-uniform": 'targets = "max-uniform"',
    "permute-rest": 'targets = "permute-rest"',
    "shuffle-in-class": 'targets = "shuffle-in-class"',
    "class-mean": 'targets = "class-mean"',
}


@dataclass
class Search:
    """The points that an arm was tried at."""

    start: Point
    errors: dict[Point, dict[str, float]] = field(default_factory=dict)

    @property
    def best(self) -> Point:
        """The point of the lowest error on the held-out images."""
        return _best(self.errors)

    def wanted(self) -> list[Point]:
        """Return the points to try next: first of the learning rate, then of the weight decay at the best rate."""
        at_start = {point: figures for point, figures in self.errors.items() if point[1] == self.start[1]}
        rate = _best(at_start)[0] if at_start else self.start[0]
        near = [(factor * rate, self.start[1]) for factor in (0.5, 1, 2)]
        if missing := [point for point in near if point not in self.errors]:
            return missing
        decay = _best({point: figures for point, figures in self.errors.items() if point[0] == rate})[1]
        return [point for factor in (0.5, 1, 2) if (point := (rate, factor * decay)) not in self.errors]


def _best(errors: Mapping[Point, dict[str, float]]) -> Point:
    return min(errors, key=lambda point: errors[point]["error"])


def main() -> None:
    """Choose a point for each arm, and keep all that were tried."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study_choice")
    parser.add_argument("--out", type=Path, required=True, help="folder for the rounds")
    parser.add_argument("--save", action="store_true", help="write the points to benchmarks/results/study")
    options = parser.parse_args()
    source = _held_out(options.out)
    found = _search(options.out / "labels", source, {"labels": ""}, START, START)
    common = found["labels"].best
    found |= _search(options.out / "weight-2", source, {"weight-2": "label_weight = 2"}, common, common)
    found |= _search(options.out / "ban-1", source, {"ban-1": _student("")}, common, common)
    share = _share(options.out / "ban-1" / "round0" / f"seed{SEED}" / "teacher.zarr")
    others = {name: _student(text) for name, text in STUDENTS.items()}
    others["smooth-mean"] = _student(f'targets = "smooth{share}"')
    found |= _search(options.out / "others", source, others, common, common)
    about = {"benchmark": "study_choice", "commit": commit(), "seed": SEED, "smooth_mean": share}
    lines = [
        {
            **about,
            "arm": name,
            "lr": point[0],
            "weight_decay": point[1],
            **figures,
            "chosen": point == search.best,
        }
        for name, search in found.items()
        for point, figures in sorted(search.errors.items())
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    print(text, end="")
    if options.save:
        (RESULTS / "study" / "choice.jsonl").write_text(text)


def _search(
    out: Path, source: str, arms: Mapping[str, str], start: Point, teacher: Point
) -> dict[str, Search]:
    """Return the points tried for each arm, in rounds of all arms that want more."""
    found = {name: Search(start) for name in arms}
    number = 0
    while True:
        tried = {
            f"{name}_{rate:g}_{decay:g}": (name, (rate, decay))
            for name, search in found.items()
            for rate, decay in search.wanted()
        }
        if not tried:
            return found
        tables = {run: f"{_point(point)}\n{arms[name]}" for run, (name, point) in tried.items()}
        for run, test in _train(out / f"round{number}", source, tables, teacher).items():
            name, point = tried[run]
            found[name].errors[point] = {"error": test["error"], "nll": test["nll"]}
        number += 1


def _train(out: Path, source: str, tables: Mapping[str, str], teacher: Point) -> dict[str, dict[str, float]]:
    """Train a round, and return what each model scores on the held-out images."""
    teachers = (
        {"teacher": f"start = 0\n{_point(teacher)}"} if "teacher = " in "".join(tables.values()) else {}
    )
    arms = "".join(f'\n[arms."{name}"]\n{table}\n' for name, table in {**teachers, **tables}.items())
    file = out.with_suffix(".toml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'{HEAD}\n[data]\nsource = "{source}"\n{arms}')
    if code := bancache(["study", str(file), "--out", str(out), "--quiet"]):
        sys.exit(code)
    models = [record for record in read_records(out / "results.jsonl") if record.get("name") in tables]
    return {str(record["name"]): record["test"] for record in models}


def _point(point: Point) -> str:
    return f"lr = {point[0]!r}\nweight_decay = {point[1]!r}"


def _student(text: str) -> str:
    return f'teacher = "teacher"\n{text}'


def _share(cache: Path) -> str:
    """Return the label smoothing that gives a label the teacher's mean confidence, rounded to hundredths."""
    opened = open_cache(cache)
    classes = opened.manifest.classes
    confidence = float(opened.summary["teacher_mean_max_probability"])
    return f"{(1 - confidence) * classes / (classes - 1):.2f}"


def _held_out(folder: Path) -> str:
    """Write the first images of each class, and the next ones as a test split, and return their source."""
    path = folder / "held-out.npz"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        images = DataSpec(DATA, limit=200 * PER_CLASS).open("train")
        order = np.argsort(images.labels, kind="stable").reshape(100, -1)
        parts = {"train": np.sort(order[:, :PER_CLASS], None), "test": np.sort(order[:, PER_CLASS:], None)}
        arrays: dict[str, Any] = {
            f"{split}_{what}": values[chosen]
            for split, chosen in parts.items()
            for what, values in (("images", images.images), ("labels", images.labels))
        }
        np.savez(path, **arrays)
    return f"npz:{path}"


if __name__ == "__main__":
    main()
