"""Which learning rate and weight decay suit each arm of the study? Chosen on training images that no arm trains on.

The arms train on the first images of each class, like the study's, and are judged on the next ones of each class. From
the common point on, an arm's learning rate is halved and doubled until its best value has a worse one on either side, then
its weight decay at that rate. ``labels`` comes first: its best point is the common one, which the teacher has, too.

Every round is a study in ``--out``, so the same command goes on after a kill. All arms take hours; two processes share them by
``--group`` once ``labels`` and its teacher are there. Lines of other arms stay when a group is saved.
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
from benchmarks.readme import read_lines

DATA = "parquet:../shared/data/cifar100"
PER_CLASS = 100
# A seed that the study does not have.
SEED = 100
# The learning rate and weight decay where the search begins.
START = (0.4, 5e-4)
# A cache has a view for each epoch of its students.
EPOCHS, LONG = 10, 40
HEAD = f"""
[study]
seeds = [{SEED}]
views = "crop4-flip"
num_views = {{num_views}}

[model]
name = "resnet-8"
image_size = [16, 16]

[recipe]
preset = "onecycle"
epochs = {EPOCHS}
batch_size = 64
"""

Point = tuple[float, float]


def _student(text: str) -> str:
    return f'teacher = "teacher"\n{text}'


# One of each family: the second and third models of an ensemble take the values of the first.
LABELS = {"labels": ""}
TERMS = {
    "weight-2": "label_weight = 2",
    "labels-smooth-10": "label_smoothing = 0.1",
    "ban-1": _student(""),
    "half": _student("loss_scale = 0.5"),
    "teacher-alone": _student('loss = "ban"'),
    "smooth-05": _student('targets = "smooth0.05"'),
    "smooth-10": _student('targets = "smooth0.1"'),
}
ROWS = {
    "smooth-20": _student('targets = "smooth0.2"'),
    "smooth-mean": _student('targets = "smooth{share}"'),
    "max-uniform": _student('targets = "max-uniform"'),
    "permute-rest": _student('targets = "permute-rest"'),
    "shuffle-in-class": _student('targets = "shuffle-in-class"'),
    "class-mean": _student('targets = "class-mean"'),
}
GROUPS = {"terms": TERMS, "rows": ROWS}
# As many epochs as a teacher and its student have together, and as a teacher and three students.
LABELS_LONGER = {f"labels-{epochs}-epochs": f"start = 0\nepochs = {epochs}" for epochs in (2 * EPOCHS, LONG)}
TAUGHT_LONGER = {f"ban-1-{LONG}-epochs": _student(f"epochs = {LONG}")}


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
    """Choose a point for each arm of a group; without one, for all arms. All points that were tried are shown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study_choice")
    parser.add_argument("--out", type=Path, required=True, help="folder for the rounds")
    parser.add_argument("--group", choices=[*GROUPS, "longer"], help="only these arms")
    parser.add_argument("--save", action="store_true", help="write the points to benchmarks/results/study")
    options = parser.parse_args()
    source = _held_out(options.out)
    found = _search(options.out / "labels", source, LABELS, START)
    common = found["labels"].best
    teacher, share = _teacher(options.out / "teacher", source, common)
    for name in GROUPS if options.group is None else {options.group} & set(GROUPS):
        arms = {arm: text.format(share=share) for arm, text in GROUPS[name].items()}
        found |= _search(options.out / name, source, arms, common, teacher)
    if options.group in (None, "longer"):
        found |= _search_longer(options.out, source, common)
    if options.group:
        del found["labels"]
    _show(found, share, save=options.save)


def _search_longer(out: Path, source: str, start: Point) -> dict[str, Search]:
    """Search for models that train longer, and for a student of one of them."""
    found = _search(out / "longer", source, LABELS_LONGER, start)
    own = found[f"labels-{LONG}-epochs"].best
    teacher, _ = _teacher(out / "longer-teacher", source, own, f"epochs = {LONG}")
    taught = _search(out / "longer-students", source, TAUGHT_LONGER, own, teacher, num_views=LONG)
    return found | taught


def _show(found: Mapping[str, Search], share: str, *, save: bool) -> None:
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
    print("".join(json.dumps(line) + "\n" for line in lines), end="")
    if save:
        file = RESULTS / "study" / "choice.jsonl"
        others = [line for line in read_lines(file) if line["arm"] not in found]
        file.write_text("".join(json.dumps(line) + "\n" for line in [*others, *lines]))


def _search(
    out: Path,
    source: str,
    arms: Mapping[str, str],
    start: Point,
    teacher: str = "",
    num_views: int = EPOCHS,
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
        given = {"teacher": f'checkpoint = "{teacher}"'} if teacher else {}
        round_ = out / f"round{number}"
        for run, test in _train(round_, source, {**given, **tables}, num_views).items():
            if run in tried:
                name, point = tried[run]
                found[name].errors[point] = {"error": test["error"], "nll": test["nll"]}
        number += 1


def _train(
    out: Path, source: str, tables: Mapping[str, str], num_views: int = EPOCHS
) -> dict[str, dict[str, float]]:
    """Train a round, and return what each model scores on the held-out images."""
    arms = "".join(f'\n[arms."{name}"]\n{table}\n' for name, table in tables.items())
    file = out.with_suffix(".toml")
    file.parent.mkdir(parents=True, exist_ok=True)
    head = HEAD.format(num_views=num_views)
    file.write_text(f'{head}\n[data]\nsource = "{source}"\n{arms}')
    _run("study", str(file), "--out", str(out))
    models = [record for record in read_records(out / "results.jsonl") if "test" in record]
    return {str(record["name"]): record["test"] for record in models}


def _run(*command: str) -> None:
    if code := bancache([*command, "--quiet"]):
        sys.exit(code)


def _teacher(out: Path, source: str, point: Point, more: str = "") -> tuple[str, str]:
    """Return the checkpoint of a teacher, and the label smoothing that gives a label its mean confidence, to hundredths."""
    _train(out, source, {"teacher": f"start = 0\n{_point(point)}\n{more}"})
    checkpoint, cache = out / f"seed{SEED}" / "teacher.pt", out / "teacher.zarr"
    _run("dump", "--teacher", str(checkpoint), "--out", str(cache), "--num-views", "1")
    opened = open_cache(cache)
    classes = opened.manifest.classes
    confidence = float(opened.summary["teacher_mean_max_probability"])
    return str(checkpoint), f"{(1 - confidence) * classes / (classes - 1):.2f}"


def _point(point: Point) -> str:
    return f"lr = {point[0]!r}\nweight_decay = {point[1]!r}"


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
