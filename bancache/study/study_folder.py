"""A study and its folder: the copy of arms.toml there has all that the file left to its defaults.

So neither another version nor a new arm changes what the models have in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bancache.encodings import default_encoding
from bancache.errors import MismatchError, UsageError
from bancache.models.names import canonical_name
from bancache.report.settings import ARMS, SETTINGS
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.study.arms import Arm, Study
from bancache.study.arms_file import StudyFile, Tables, read_study, with_rate
from bancache.study.given import require_weights
from bancache.system import configs
from bancache.system.files import require_writable
from bancache.system.locks import in_turn
from bancache.system.progress import Progress
from bancache.training.defaults import (
    are_photographs,
    default_model,
    default_num_views,
    default_side,
    default_views,
    has_usual_rate,
    photographs_rate,
)
from bancache.training.recipe import with_additions
from bancache.views.space import ViewSpace

_DUMPED_AT_ONCE = 256
_KEPT = ("views", "num_views", "encoding", "batch_size", "profile")


def require_room(out: Path) -> None:
    """Raise ``UsageError`` if a folder cannot be written, or is one of ``bancache generations``."""
    require_writable(out / ARMS)
    if (out / SETTINGS).exists():
        raise UsageError(f"{out} is a folder of `bancache generations`", hint="choose another --out")


def completed(file: StudyFile, out: Path) -> StudyFile:
    """Return a file with what it leaves out and the copy in a folder, if there is one, records."""
    stored = _stored(out)
    if not stored:
        return file
    kept = {"study": _KEPT, "data": ("decoder",), "model": ("name", "image_size")}
    tables = {
        title: {**{key: value for key, value in stored[title].items() if key in keys}, **file.tables[title]}
        for title, keys in kept.items()
    }
    if "lr" not in file.tables["recipe"]:
        file = with_rate(file, stored["recipe"]["lr"])
    return replace(file, tables={**file.tables, **tables}, data=DataSpec(**tables["data"]))


def for_images(file: StudyFile, data: ImageSet, progress: Progress) -> StudyFile:
    """Return a file with the learning rate of photographs if its images are such and nothing says another.

    Says so, and which learning rate nobody gave to an optimizer.
    """
    height, width = _architecture(file, data)["image_size"]
    if not data.uniform and "image_size" not in file.tables["model"]:
        progress.note(
            f"pictures differ in size: views of {height} x {width} pixels are made of them (model.image_size)"
        )
    photographs = are_photographs(height, width, ragged=not data.uniform) and file.recipe.optimizer == "sgd"
    if photographs and file.tables["recipe"].keys().isdisjoint(("lr", "preset")):
        lr = photographs_rate(file.recipe.lr, file.recipe.batch_size, len(data))
        progress.note(
            f"learning rate {lr:g} for photographs: in proportion to the batch size, {file.recipe.lr / 2:g} for 256 "
            "(recipe.lr)"
        )
        file = with_rate(file, lr)
    _say_rates(file, progress)
    return file


def _say_rates(file: StudyFile, progress: Progress) -> None:
    recipe, table = file.recipe, file.tables["recipe"]
    if "optimizer" in table and "lr" not in table and has_usual_rate(recipe):
        progress.note(f"learning rate {recipe.lr:g}, the usual one of {recipe.optimizer} (recipe.lr)")
    for arm in file.arms:
        if arm.recipe.optimizer != recipe.optimizer and "lr" not in file.tables["arms"][arm.name]:
            progress.warn(
                f"arms.{arm.name} has {arm.recipe.optimizer} at the learning rate {recipe.lr:g} of {recipe.optimizer}: "
                "give it an lr"
            )


def resolve(file: StudyFile, data: ImageSet) -> tuple[Study, Tables]:
    """Return a study on its training images, and its tables with all defaults.

    Raises:
        UsageError: The classes or channels in the file are not those of the data, or endless views have no number.
    """
    given = file.tables["study"]
    architecture = _architecture(file, data)
    height, width = architecture["image_size"]
    views = given.get("views") or default_views(file.data.kind, height, width, ragged=not data.uniform)
    space = ViewSpace.parse(views)
    hottest = max(arm.recipe.temperature for arm in file.arms)
    arms = tuple(_looked_at(file.arms, data))
    study = Study(
        data=file.data,
        architecture=architecture,
        amp=file.recipe.amp,
        views=space.name,
        num_views=_num_views(given.get("num_views"), space, file),
        encoding=given.get("encoding") or default_encoding(hottest, len(data.classes)),
        batch_size=given.get("batch_size", _DUMPED_AT_ONCE),
        seeds=file.seeds,
        arms=arms,
        profile=given.get("profile", "default"),
    )
    tables = {
        "study": {"baseline": given["baseline"], **{key: getattr(study, key) for key in ("seeds", *_KEPT)}},
        # A file that does not say so means the balanced images; a checkpoint's data, the first ones.
        "data": study.data.to_dict() | ({} if study.data.balanced else {"balanced": False}),
        "model": architecture,
        "recipe": file.recipe.to_dict(),
        "arms": {
            arm.name: file.tables["arms"][arm.name]
            | ({"fingerprint": arm.given.fingerprint} if arm.given else {})
            for arm in arms
        },
    }
    return study, configs.plain(tables)


def _looked_at(arms: Sequence[Arm], data: ImageSet) -> Iterator[Arm]:
    """Yield the arms, those of given teachers with the fingerprints of their weights."""
    import torch

    for arm in arms:
        if arm.given is not None:
            teacher, _ = arm.given.open(data, torch.device("cpu"))
            require_weights(teacher.path, teacher.fingerprint, arm.given.fingerprint)
            arm = replace(arm, given=replace(arm.given, fingerprint=teacher.fingerprint))
        yield arm


def claim(tables: Tables, out: Path) -> None:
    """Copy a study to its folder before its first run, or add its new arms and seeds to the copy there.

    Raises:
        MismatchError: The folder holds another study, or the study has lost an arm or a seed.
        UsageError: The folder is one of ``bancache generations``.
    """
    require_room(out)
    with in_turn(out):
        stored = _stored(out)
        if stored:
            _require_contained(out / ARMS, stored, tables)
        if tables != stored:
            configs.write_toml(out / ARMS, tables)


def _stored(out: Path) -> Tables:
    """Return the tables of the copy in a folder; empty if there is none."""
    return read_study(out / ARMS).tables if (out / ARMS).exists() else {}


def _require_contained(path: Path, stored: Tables, asked: Tables) -> None:
    for title, table in stored.items():
        before, now = table, asked.get(title, {})
        if title == "recipe":
            before, now = with_additions(before), with_additions(now)
        # Arms may be added, and so may seeds; all else is as it was.
        for key in before if title == "arms" else sorted({*before, *now}):
            same = before.get(key) == now.get(key)
            if title == "study" and key == "seeds":
                same = set(before[key]) <= set(now[key])
            if not same:
                raise MismatchError.between(
                    f"{path}: {title}.{key}",
                    stored=before.get(key),
                    given=now.get(key),
                    hint="keep the arms and settings of a study that has begun, or choose another --out",
                )


def _architecture(file: StudyFile, data: ImageSet) -> dict[str, Any]:
    given = file.tables["model"]
    own = (data.height, data.width) if data.uniform else (default_side(data.images),) * 2
    height, width = given.get("image_size") or own
    of_data = {"classes": len(data.classes), "channels": data.channels}
    for key, value in of_data.items():
        if given.get(key, value) != value:
            raise UsageError(
                f"{file.path}: model.{key} is {given[key]}, and the data has {value}", hint=f"leave out {key}"
            )
    name = given.get("name") or default_model(file.data.kind, height, width)
    more = {"image_size": [height, width], "dropout": given.get("dropout", 0.0)}
    if given.get("checkpoint_activations"):
        more["checkpoint_activations"] = True
    return {"name": canonical_name(name), **of_data, **more}


def _num_views(given: int | str | None, space: ViewSpace, file: StudyFile) -> int:
    if given != "all":
        return int(given or default_num_views(space, {"epochs": file.recipe.epochs}))
    if space.is_endless:
        raise UsageError(
            f"{file.path}: views '{space.name}' are drawn anew at every view index, so there is no end of them",
            hint="give study.num_views a number",
        )
    return space.size
