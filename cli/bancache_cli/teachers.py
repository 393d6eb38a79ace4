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

if TYPE_CHECKING:
    import torch

    from bancache.cache.manifest import Manifest
    from bancache.dumping import DumpSettings
    from bancache.models.teacher import Teacher
    from bancache.sources.image_set import ImageSet
    from bancache.sources.spec import DataSpec
    from bancache.system.progress import Progress
    from bancache.views import ViewSpace
    from bancache.views.model_input import ModelInput

Weights = Annotated[Path | None, Option(help="File with a state dict, for a model of torchvision or timm.")]
MaybeTeacher = Annotated[
    str | None, Option("--teacher", metavar="MODEL", help="The cache's teacher (default: where it was).")
]


@dataclass(frozen=True)
class TeacherOptions:
    """A teacher and its precision."""

    teacher: Annotated[
        str,
        Option(
            metavar="MODEL", help="A checkpoint, torchvision:NAME, timm:NAME, module:function or FILE.pt2."
        ),
    ]
    weights: Weights = None
    precision: Annotated[
        Literal["float32", "bfloat16"] | None,
        Option(help="Precision of the teacher's forward pass (default: as in training)."),
    ] = None
    mean: Annotated[
        str | None,
        Option(
            metavar="M,M,M",
            help="Mean of the teacher's pixels, in 0..1, or data (default: as its checkpoint, timm or torchvision says).",
        ),
    ] = None
    std: Annotated[
        str | None, Option(metavar="S,S,S", help="Standard deviation of the teacher's pixels, in 0..1.")
    ] = None
    outputs: Annotated[
        Literal["logits", "probabilities"] | None,
        Option(
            help="What a third-party model returns (default: logits; what looks like probabilities is refused)."
        ),
    ] = None


@dataclass(frozen=True)
class Opened:
    """A teacher, its input, its training images, and how to open the images again."""

    teacher: Teacher
    input: ModelInput
    images: ImageSet
    spec: DataSpec


def open_teacher(
    asked: TeacherOptions,
    views: str | None,
    data: options.TeacherDataOptions,
    device: torch.device,
    reporter: Progress,
) -> Opened:
    """Load a teacher and its images; a bancache checkpoint has recorded its data, other models need --data."""
    from bancache.models.checkpoint import load_checkpoint
    from bancache.models.teacher import load_teacher
    from bancache.sources.spec import DataSpec

    name, third_party = asked.teacher, is_third_party(asked.teacher)
    if third_party and (data.data is None or views is None):
        raise UsageError(f"teacher '{name}' has no recorded data set", hint="add --data and --views")
    header = {} if third_party else load_checkpoint(Path(name)).header
    known = data.spec(header["data"]) if header else DataSpec(str(data.data))
    spec = replace(
        known,
        limit=known.limit if data.limit is None else data.limit,
        image_size=known.image_size if data.image_size is None else data.image_size,
        skip_bad=known.skip_bad or data.skip_bad,
    )
    images = spec.open("train", download=data.download, progress=reporter)
    if header and header["data_fingerprint"] != images.fingerprint:
        if data.data is None:
            raise MismatchError.between(
                "data set",
                stored=f"'{short(header['data_fingerprint'])}' (the teacher was)",
                given=f"'{short(images.fingerprint)}'",
                hint="the data changed since then; to dump for it anyway, name it with --data",
            )
        reporter.note("the teacher was trained on other images")
    trained_amp = header.get("recipe", {}).get("amp", False)
    teacher = load_teacher(
        name,
        device=device,
        weights=asked.weights,
        precision=asked.precision or ("bfloat16" if trained_amp else "float32"),
        shape=(len(images.classes), images.channels, images.height, images.width),
        outputs=asked.outputs,
    )
    given = _input(asked, teacher, images)
    if third_party:
        _say_input(given, images, reporter)
    return Opened(replace(teacher, input=given), given, images, spec)


def _input(asked: TeacherOptions, teacher: Teacher, images: ImageSet) -> ModelInput:
    """Return what a teacher is given: as the options say, else as its checkpoint or its library does.

    Raises:
        UsageError: Nothing says it, or the options contradict a checkpoint or each other.
    """
    from bancache.views.model_input import ModelInput, Normalization

    if teacher.header and (asked.mean or asked.std or asked.outputs):
        raise UsageError(
            f"{teacher.path} has recorded its input", hint="leave out --mean, --std and --outputs"
        )
    size = teacher.input.size if teacher.input else None
    if asked.mean == "data" and asked.std is None:
        return ModelInput(size, Normalization(images.statistics.mean, images.statistics.std), "the data")
    if asked.mean is None and asked.std is None:
        if teacher.input is None:
            raise UsageError(
                f"nothing says how the images of teacher '{teacher.path}' are normalized",
                hint="add --mean and --std, as 0.485,0.456,0.406 and 0.229,0.224,0.225; --mean 0 --std 1 for none; "
                "or --mean data for the statistics of the data",
            )
        return teacher.input
    mean, std = (_fractions(name, value) for name, value in (("--mean", asked.mean), ("--std", asked.std)))
    return ModelInput(size, Normalization.of_fractions(mean, std, images.channels), "the options")


def _fractions(option: str, text: str | None) -> list[float]:
    try:
        numbers = [float(part) for part in (text or "").split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= 1 for number in numbers):
        raise UsageError(
            f"{option} {text or 'is missing'}: it is a number in 0..1 for each channel",
            hint="write --mean 0.5,0.5,0.5 --std 0.25,0.25,0.25",
        )
    return numbers


def _say_input(known: ModelInput, images: ImageSet, reporter: Progress) -> None:
    """Say how a third-party teacher's images are normalized, and whether they have its own size."""
    reporter.note(f"the teacher's images are normalized by {input_text(known.to_dict())}")
    size = known.size
    if size is not None and size != (images.height, images.width):
        reporter.note(
            f"the teacher's own size is {size[0]}x{size[1]}, the images are {images.height}x{images.width}: "
            f"--image-size {size[0]} resizes them"
        )


def input_text(known: dict[str, Any]) -> str:
    """Return a normalization as text, from the JSON values of a teacher's input."""
    mean, std = (
        ", ".join(f"{value / 255:.3g}" for value in known["normalization"][name]) for name in ("mean", "std")
    )
    return f"mean {mean} and std {std} ({known['origin']})"


def accuracy_text(facts: dict[str, Any]) -> str:
    """Return a teacher's accuracy beside chance, and its confidence."""
    return (
        f"teacher: accuracy {facts['teacher_accuracy']:.2%}, chance {facts['chance']:.2%}, "
        f"mean largest probability {facts['teacher_mean_max_probability']:.3f}"
    )


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
    )


def student_temperature(opened: Opened, temperature: float | None) -> float:
    """Return the temperature that students will use: from the option, else from the teacher's recipe."""
    recipe = opened.teacher.header.get("recipe") or {}
    return float(temperature or recipe.get("temperature", 1.0))


def count_views(text: str | None, space: ViewSpace, recipe: dict[str, Any] | None) -> int:
    """Return the number that ``--num-views`` means; without it, the number that suits the teacher's recipe."""
    from bancache.training.defaults import default_num_views

    if text is None:
        return default_num_views(space, recipe)
    if text == "all":
        return space.size
    if not text.isdecimal():
        raise UsageError(
            f"--num-views is a number or all, not '{text}'", hint=f"use --num-views 1 to {space.size}, or all"
        )
    return int(text)


def open_images(manifest: Manifest, data: str | None, reporter: Progress) -> ImageSet:
    """Open the images that a cache was made for, at their recorded or their new location."""
    spec = options.RecordedDataOptions(data).spec(manifest.dataset["spec"])
    return spec.open("train", progress=reporter)


@dataclass(frozen=True)
class OriginOptions:
    """Where the images of a cache are now, and how its teacher runs again."""

    weights: Weights = None
    data: options.MaybeData = None
    device: options.Device = "auto"

    def open(
        self, cache: Path, name: str | None, reporter: Progress
    ) -> tuple[Teacher, ImageSet, torch.device]:
        """Load the teacher that a cache was made from, with the cache's precision, and its images.

        Only ``name``, which the user typed, may choose code. The path in the manifest may come from a stranger:
        it is opened as a bancache checkpoint or not at all.

        Raises:
            UsageError: No name was given, and the manifest's teacher is not a checkpoint.
            CheckpointError: The file is missing, damaged, or would execute code.
        """
        from bancache.cache.reader import open_cache
        from bancache.models.teacher import load_checkpoint_teacher, load_teacher
        from bancache.system.device import choose_device

        device, manifest = choose_device(self.device), open_cache(cache).manifest
        images = open_images(manifest, self.data, reporter)
        recorded, precision = manifest.teacher.get("path", ""), manifest.compute["precision"]
        if name is not None:
            shape = (len(images.classes), images.channels, images.height, images.width)
            outputs = manifest.compute.get("outputs")
            teacher = load_teacher(
                name, device=device, weights=self.weights, precision=precision, shape=shape, outputs=outputs
            )
            return teacher, images, device
        if is_third_party(recorded):
            raise UsageError(
                f"the cache's teacher is '{recorded}', which is not a checkpoint; a cache may not choose code to run",
                hint="if you trust it, name it yourself with --teacher",
            )
        if self.weights is not None:
            raise UsageError("--weights needs --teacher", hint="add --teacher, or leave out --weights")
        return load_checkpoint_teacher(Path(recorded), device=device, precision=precision), images, device
