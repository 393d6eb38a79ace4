"""Opening a teacher with its images, and settling how it is asked: what `dump` and `plan` share."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bancache.errors import MismatchError, UsageError
from bancache.system.fingerprint import short
from bancache_cli import console

if TYPE_CHECKING:
    import torch

    from bancache.dumping import DumpSettings
    from bancache.models.teacher import Teacher
    from bancache.sources.base import ImageSet
    from bancache.sources.spec import DataSpec
    from bancache.views import ViewSpace

Net = Annotated[
    str,
    typer.Option(
        metavar="NET", help="A checkpoint, or torchvision:NAME, timm:NAME, module:function, FILE.pt2."
    ),
]
Weights = Annotated[Path | None, typer.Option(help="A state dict, for a net of torchvision or timm.")]
ViewSeed = Annotated[int, typer.Option(help="Decides which view is stored in which view.")]
Precision = Annotated[
    Literal["float32", "bfloat16"] | None,
    typer.Option(help="Of the forward pass; by default as the teacher was trained."),
]

StudentTemperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        min=0.01,
        help="That students will use: decides the encoding, and where --max-kl holds; by default as the teacher's recipe.",
    ),
]


@dataclass(frozen=True)
class Opened:
    """A teacher, the training images it is asked about, and how to open them again."""

    teacher: Teacher
    images: ImageSet
    spec: DataSpec


def open_teacher(
    name: str,
    device: torch.device,
    reporter: console.Reporter,
    *,
    weights: Path | None,
    precision: str | None,
    views: str | None,
    data: str | None,
    limit: int | None,
    image_size: int | None,
    download: bool,
) -> Opened:
    """Load a teacher and its images; a checkpoint of ours knows its data, another net is told.

    Raises:
        UsageError: A net from elsewhere without data or views.
        MismatchError: The images changed since the teacher was trained, and nobody asked for these.
    """
    from bancache.models.checkpoint import load_checkpoint
    from bancache.models.teacher import is_foreign, load_teacher
    from bancache.sources.spec import DataSpec

    foreign = is_foreign(name)
    if foreign and (data is None or views is None):
        raise UsageError(f"teacher '{name}' does not know its data", hint="add --data and --views")
    if foreign:
        sys.path.append("")  # as `python -m` has it first: a net of one's own lies in the folder one works in
    header = {} if foreign else load_checkpoint(Path(name)).header
    known = DataSpec.from_dict(header["data"]).moved(data) if header else DataSpec(str(data))
    spec = replace(
        known,
        limit=known.limit if limit is None else limit,
        image_size=known.image_size if image_size is None else image_size,
    )
    images = spec.open("train", download=download, progress=reporter)
    if header and header["data_fingerprint"] != images.fingerprint:
        _refuse_or_note(
            header["data_fingerprint"], images.fingerprint, asked=data is not None, reporter=reporter
        )
    trained_amp = header.get("recipe", {}).get("amp", False)
    teacher = load_teacher(
        name,
        device=device,
        weights=weights,
        precision=precision or ("bfloat16" if trained_amp else "float32"),
        shape=(len(images.classes), images.channels, images.height, images.width),
    )
    return Opened(teacher, images, spec)


def settle(
    opened: Opened,
    *,
    views: str | None,
    num_views: str | None,
    view_seed: int,
    encoding: str | None,
    batch_size: int,
    temperature: float | None = None,
) -> DumpSettings:
    """Return how a teacher is asked: what was said, and for the rest what its checkpoint suggests."""
    from bancache.dumping import DumpSettings
    from bancache.encodings import default_encoding
    from bancache.views import ViewSpace
    from bancache.views.renderer import Normalization

    header = opened.teacher.header
    space = ViewSpace.parse(views or header["views"], seed=view_seed)
    recipe, known = header.get("recipe"), header.get("normalisation")
    statistics = opened.images.statistics
    return DumpSettings(
        space=space,
        num_views=count_views(num_views, space, recipe),
        encoding=encoding
        or default_encoding(students_temperature(opened, temperature), len(opened.images.classes)),
        batch_size=batch_size,
        normalization=Normalization.from_dict(known)
        if known
        else Normalization(statistics.mean, statistics.std),
    )


def students_temperature(opened: Opened, temperature: float | None) -> float:
    """Return the temperature that students will use: what was said, or what the teacher's recipe says."""
    recipe = opened.teacher.header.get("recipe") or {}
    return float(temperature or recipe.get("temperature", 1.0))


def count_views(text: str | None, space: ViewSpace, recipe: dict[str, Any] | None) -> int:
    """Return the number that ``--num-views`` means; where it is not given, what the teacher's recipe suggests."""
    from bancache.training.defaults import default_num_views

    if text is None:
        return default_num_views(space, recipe)
    if text == "all":
        return space.size
    if not text.isdecimal():
        raise UsageError(
            f"--num-views is a number or all, not '{text}'", hint=f"use 1 to {space.size}, or all"
        )
    return int(text)


def _refuse_or_note(trained_on: str, found: str, *, asked: bool, reporter: console.Reporter) -> None:
    if not asked:
        raise MismatchError.between(
            "data set",
            stored=f"'{short(trained_on)}' (the teacher was)",
            given=f"'{short(found)}'",
            hint="the data changed since; to dump for it all the same, name it with --data",
        )
    reporter.note("note: these are not the images that the teacher was trained on")
