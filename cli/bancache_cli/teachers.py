"""Opening a teacher with its images: the one that an option names, or the one that a cache was made from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from bancache.errors import MismatchError, UsageError
from bancache.models.names import is_third_party
from bancache.system.fingerprint import short
from bancache_cli import options
from bancache_cli.inputs import count_views, teacher_size
from bancache_cli.teacher_files import check_files, with_weights
from bancache_cli.teacher_input import InputOptions, say_input

if TYPE_CHECKING:
    import torch

    from bancache.dumping import DumpSettings
    from bancache.models.teacher import Teacher
    from bancache.sources.image_set import ImageSet
    from bancache.sources.spec import DataSpec
    from bancache.system.progress import Progress
    from bancache.views.model_input import ModelInput

Weights = Annotated[
    list[Path] | None,
    Option(
        metavar="FILE",
        help="File with weights, for a model of torchvision or timm; FILE:NAME for one set of several in it.",
    ),
]

_SUCH_AS = {"data": "--data", "views": "--views, such as crop4-flip, or rrc-flip for photographs"}


@dataclass(frozen=True)
class TeacherOptions(InputOptions):
    """A teacher, its input and its precision."""

    teacher: Annotated[
        list[str],
        Option(
            metavar="MODEL",
            help="A checkpoint, torchvision:NAME, timm:NAME, module:function or FILE.pt2. Several are an ensemble.",
        ),
    ]
    combine: Annotated[
        Literal["probabilities", "logits"],
        Option(help="Of an ensemble's teachers: the mean of their probabilities, or of their logits."),
    ] = "probabilities"
    weights: Weights = None
    teacher_size: Annotated[
        int | None,
        Option(
            help="Height and width in pixels at which the teacher sees views (default: the teacher's own).",
            min=8,
            max=4096,
        ),
    ] = None
    precision: Annotated[
        Literal["float32", "bfloat16"] | None,
        Option(help="Precision of the teacher's forward pass (default: as in training)."),
    ] = None
    outputs: Annotated[
        Literal["logits", "probabilities"] | None,
        Option(
            help="What a third-party model returns (default: logits; what looks like probabilities is refused)."
        ),
    ] = None


@dataclass(frozen=True)
class Opened:
    """A teacher, its input and the size of that, its training images, and how to open the images again."""

    teacher: Teacher
    input: ModelInput
    size: tuple[int, int]
    images: ImageSet
    spec: DataSpec


def check(asked: TeacherOptions, views: str | None, data: options.TeacherDataOptions) -> None:
    """Refuse a teacher that cannot be opened, and names that make no sense, without importing torch."""
    from bancache.sources import parse_source
    from bancache.views.space import ViewSpace

    if views is not None:
        ViewSpace.parse(views)
    if data.data is not None:
        parse_source(data.data)
    for name, weights in with_weights(asked.teacher, asked.weights):
        recorded = {"data": data.data, "views": views} if is_third_party(name) else {}
        if missing := [what for what, given in recorded.items() if given is None]:
            raise UsageError(
                f"teacher '{name}' has recorded no {' and no '.join(missing)}",
                hint="add " + " and ".join(_SUCH_AS[what] for what in missing),
            )
        check_files(name, weights)


def open_teacher(
    asked: TeacherOptions,
    views: str | None,
    data: options.TeacherDataOptions,
    device: torch.device,
    reporter: Progress,
    begun: str | None = None,
) -> Opened:
    """Load a teacher and its images; a bancache checkpoint has recorded its data, other models need --data.

    ``begun`` is the fingerprint of the images of a cache that shall go on: others are refused before the teacher is loaded.
    """
    from bancache.sources.spec import DataSpec
    from bancache.views import ViewSpace
    from bancache.views.pictures import shapes_of

    check(asked, views, data)
    headers = _headers(asked)
    own = all(headers)  # else --data and --views are given
    known = data.spec(headers[0]["data"]) if own else DataSpec(str(data.data))
    spec = replace(
        known,
        limit=known.limit if data.limit is None else data.limit,
        image_size=known.image_size if data.image_size is None else data.image_size,
        skip_bad=known.skip_bad or data.skip_bad,
    )
    images = spec.open("train", download=data.download, progress=reporter)
    if begun not in (None, images.fingerprint):
        raise MismatchError.between(
            "data set",
            stored=f"'{short(str(begun))}'",
            given=f"'{short(images.fingerprint)}'",
            hint="use the same settings, another --out, or --overwrite to start anew",
        )
    for header in headers:
        _require_data(header, images, data.data, reporter)
    sizes = _sizes(asked, headers, images, reporter)
    for size in sizes:
        shapes_of(images.images).require(ViewSpace.parse(views or _one_name(asked, headers)), size)
    teacher, size = _loaded(asked, headers, images, sizes, device, reporter)
    assert teacher.input is not None
    return Opened(teacher, teacher.input, size, images, spec)


def open_on(
    asked: TeacherOptions, images: ImageSet, device: torch.device, reporter: Progress | None = None
) -> tuple[Teacher, tuple[int, int]]:
    """Load a teacher for images that are open, and return it with height and width of its views."""
    from bancache.system.progress import Silent

    headers, reporter = _headers(asked), reporter or Silent()
    for header in headers:
        _require_data(header, images, images.name, reporter)
    sizes = _sizes(asked, headers, images, reporter)
    return _loaded(asked, headers, images, sizes, device, reporter)


def _headers(asked: TeacherOptions) -> list[dict[str, Any]]:
    """Return the headers of the teachers' checkpoints; empty ones for third-party models."""
    from bancache.models.checkpoint import load_checkpoint

    return [{} if is_third_party(name) else load_checkpoint(Path(name)).header for name in asked.teacher]


def _require_data(header: dict[str, Any], images: ImageSet, named: str | None, reporter: Progress) -> None:
    """Refuse images that a checkpoint was not trained on, unless the user named them."""
    if not header or header["data_fingerprint"] == images.fingerprint:
        return
    if named is None:
        from bancache.sources.other_pixels import why_other_pixels

        why = why_other_pixels(header["data"], None)
        otherwise = f", or the files are the same: {why}" if why else ""
        raise MismatchError.between(
            "data set",
            stored=f"'{short(header['data_fingerprint'])}' (the teacher was)",
            given=f"'{short(images.fingerprint)}'",
            hint=f"the data changed since then{otherwise}; to dump for it anyway, name it with --data",
        )
    reporter.note("the teacher was trained on other images")


def _sizes(
    asked: TeacherOptions, headers: list[dict[str, Any]], images: ImageSet, reporter: Progress
) -> list[tuple[int, int]]:
    """Return height and width of each teacher's input."""
    sizes = [
        teacher_size(name, asked.teacher_size, header, images)
        for name, header in zip(asked.teacher, headers, strict=True)
    ]
    if len(set(sizes)) > 1:
        shown = ", ".join(f"{n} {h}x{w}" for n, (h, w) in zip(asked.teacher, sizes, strict=True))
        reporter.note(f"each teacher sees the views at its own size: {shown} (one for all by --teacher-size)")
    return sizes


def _one_name(asked: TeacherOptions, headers: list[dict[str, Any]]) -> str:
    """Return the name of the views that all checkpoints were trained on."""
    names = [str(header["views"]) for header in headers]
    if len(set(names)) > 1:
        shown = ", ".join(f"{n} {v}" for n, v in zip(asked.teacher, names, strict=True))
        raise UsageError(f"the teachers were trained on different views: {shown}", hint="add --views")
    return names[0]


def _loaded(
    asked: TeacherOptions,
    headers: list[dict[str, Any]],
    images: ImageSet,
    sizes: list[tuple[int, int]],
    device: torch.device,
    reporter: Progress,
) -> tuple[Teacher, tuple[int, int]]:
    """Load the teacher, or the ensemble, with the inputs that options and records say, and its largest size."""
    from bancache.models.ensemble import ensemble
    from bancache.models.teacher import load_teacher
    from bancache.views.several_sizes import distinct

    if all(headers) and (asked.mean or asked.std or asked.outputs):
        raise UsageError(
            f"{asked.teacher[0]} has recorded its input", hint="leave out --mean, --std and --outputs"
        )
    # In float32 if one of the checkpoints was trained in it.
    trained_amp = all(header.get("recipe", {}).get("amp", False) for header in headers)
    teachers = []
    named = with_weights(asked.teacher, asked.weights)
    for (name, weights), header, size in zip(named, headers, sizes, strict=True):
        teacher = load_teacher(
            name,
            device=device,
            weights=weights,
            precision=asked.precision or ("bfloat16" if trained_amp else "float32"),
            shape=(len(images.classes), images.channels, *size),
            outputs=None if header else asked.outputs,
            progress=reporter,
        )
        if not header:
            teacher = replace(teacher, input=asked.choose(teacher, images))
            say_input(teacher, size, asked.teacher_size is not None, reporter)
        teachers.append(teacher)
    teacher = teachers[0] if len(teachers) == 1 else ensemble(teachers, asked.combine, sizes)
    return teacher, distinct(sizes)[-1]


def dump_settings(
    opened: Opened, views: options.SeededViewOptions, temperature: float | None = None
) -> DumpSettings:
    """Return the settings of a dump with the default encoding, in part from the teacher's checkpoint."""
    from bancache.dumping import DumpSettings
    from bancache.encodings import default_encoding
    from bancache.views import ViewSpace

    header = opened.teacher.header
    space = ViewSpace.parse(views.views or header["views"], seed=views.view_seed)
    recipe = header.get("recipe")
    return DumpSettings(
        space=space,
        num_views=count_views(views.num_views, space, recipe),
        encoding=default_encoding(student_temperature(opened, temperature), len(opened.images.classes)),
        batch_size=256,
        normalization=opened.input.normalization,
        size=opened.size,
    )


def student_temperature(opened: Opened, temperature: float | None) -> float:
    """Return the temperature that students will use: from the option, else from the teacher's recipe."""
    recipe = opened.teacher.header.get("recipe") or {}
    return float(temperature or recipe.get("temperature", 1.0))
