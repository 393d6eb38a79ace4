"""A study from a file: every arm and seed that is missing in its folder is trained there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bancache.errors import UsageError
from bancache.report.results import Record
from bancache.study.arms import Study
from bancache.study.arms_file import StudyFile
from bancache.study.running import Place, check_arms, run_arms
from bancache.study.study_folder import claim, completed, for_images, resolve
from bancache.system.files import make_directory
from bancache.system.wording import count


def run_study(file: StudyFile, out: Path, place: Place, seeds: Sequence[int] | None = None) -> list[Record]:
    """Carry out the part of a study that is not done yet, and return all its result lines.

    Args:
        file: The study.
        out: A folder for arms.toml, results.jsonl and one folder per seed.
        place: Where and how.
        seeds: Those of the study to work on; by default all. Processes with different seeds may share ``out``.

    Raises:
        MismatchError: ``out`` holds another study.
        UsageError: A seed is not one of the study's, or an arm cannot be trained.
    """
    if unknown := [seed for seed in seeds or () if seed not in file.seeds]:
        raise UsageError(
            f"seed {unknown[0]} is not one of the study's {', '.join(map(str, file.seeds))}",
            hint=f"add it to study.seeds in {file.path}, or choose other --seeds",
        )
    make_directory(out)
    file = completed(file, out)
    splits = file.data.open_both(download=place.download, progress=place.progress)
    study, tables = resolve(for_images(file, splits[0], place.progress), splits[0])
    check_arms(study)
    claim(tables, out)
    _note_shared_starts(study, place)
    own = replace(study, seeds=tuple(seeds or study.seeds))
    models = [arm for arm in own.arms if arm.trains]
    place.progress.log(f"{count(len(models), 'model')} of {count(len(own.seeds), 'seed')}: {out}")
    return run_arms(own, splits, out, place)


def _note_shared_starts(study: Study, place: Place) -> None:
    """Say which students begin with the first weights and the order of their teacher."""
    for teacher in study.arms:
        students = [
            arm.name for arm in study.arms if arm.teacher == teacher.name and arm.start == teacher.start
        ]
        if students:
            place.progress.note(
                f"{', '.join(students)}: the first weights of the teacher {teacher.name}, too (start = {teacher.start})"
            )
