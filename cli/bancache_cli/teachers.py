"""Opening a teacher with its images: the one that an option names, or the one that a cache was made from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from bancache.errors import CheckpointError, MismatchError, UsageError
from bancache.models.names import canonical_name, is_third_party, split_weights
from bancache.system.fingerprint import short
from bancache_cli import options
from bancache_cli.inputs import count_views, teacher_size
from bancache_cli.teacher_input import InputOptions, say_input

if TYPE_CHECKING:
    import torch

    from bancache.cache.manifest import Manifest
    from bancache.dumping import DumpSettings
    from bancache.models.teacher import Teacher
    from bancache.sources.image_set import ImageSet
    from bancache.sources.spec import DataSpec
    from bancache.system.progress import Progress
    from bancache.views.model_input import ModelInput

Weights = Annotated[
    Path | None,
    Option(
        help="File with weights, for a model of torchvision or timm; FILE:NAME for one set of several in it."
    ),
]
MaybeTeacher = Annotated[
    str | None, Option("--teacher", metavar="MODEL", help="The cache's teacher (default: where it was).")
]


@dataclass(frozen=True)
class TeacherOptions(InputOptions):
    """A teacher, its input and its precision."""

    teacher: Annotated[
        str,
        Option(
            metavar="MODEL", help="A checkpoint, torchvision:NAME, timm:NAME, module:function or FILE.pt2."
        ),
    ]
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
    """Refuse a teacher that cannot be opened, without importing torch."""
    if is_third_party(asked.teacher) and (data.data is None or views is None):
        raise UsageError(f"teacher '{asked.teacher}' has no recorded data set", hint="add --data and --views")
    check_files(asked.teacher, asked.weights)


def check_files(name: str, weights: Path | None = None) -> None:
    """Refuse a teacher or weights that are not there, without importing torch."""
    library, file = name.startswith(("torchvision:", "timm:")), Path(name)
    if weights is not None and (name.endswith(".pt2") or not is_third_party(name)):
        what = (
            f"--weights {weights} is for a model that is no checkpoint or export; {name} has its own weights"
        )
        raise UsageError(what, hint="leave out --weights")
    if library and weights is None:
        raise UsageError(f"teacher '{name}' has no weights", hint="add --weights FILE")
    if weights is not None and not split_weights(str(weights))[0].exists():
        raise CheckpointError(
            f"{split_weights(str(weights))[0]} is missing", hint="give the file with --weights"
        )
    if is_third_party(name) and not name.endswith(".pt2"):
        return
    if file.suffix == ".safetensors" or file.is_dir():
        hint = f"name the model, too: --teacher timm:NAME --weights {name}"
        raise CheckpointError(f"{name} is no bancache checkpoint", hint=hint)
    if not file.exists():
        raise _missing(file)


def _missing(file: Path) -> CheckpointError | UsageError:
    """Return the error for a teacher that is not there, with what may have been meant."""
    near = get_close_matches(file.name, [each.name for each in file.parent.glob("*.pt*")], n=2)
    if near or file.suffix or len(file.parts) > 1:
        shown = f"the nearest: {', '.join(str(file.with_name(name)) for name in near)}"
        return CheckpointError(f"{file} is missing", hint=shown if near else "")
    try:
        own = canonical_name(file.name)
        hint = f"train it first: bancache train-teacher --model {own} --out gen0.pt"
    except UsageError:
        hint = f"did you mean torchvision:{file} or timm:{file}, with --weights FILE?"
    return UsageError(f"no teacher '{file}': there is no such file", hint=hint)


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
    from bancache.views import ViewSpace
    from bancache.views.pictures import Pictures

    check(asked, views, data)
    name, third_party = asked.teacher, is_third_party(asked.teacher)
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
    size = teacher_size(asked.teacher, asked.teacher_size, header, images)
    Pictures.of(images.images).require(ViewSpace.parse(views or header["views"]), size)
    trained_amp = header.get("recipe", {}).get("amp", False)
    teacher = load_teacher(
        name,
        device=device,
        weights=asked.weights,
        precision=asked.precision or ("bfloat16" if trained_amp else "float32"),
        shape=(len(images.classes), images.channels, *size),
        outputs=asked.outputs,
        progress=reporter,
    )
    if not third_party and (asked.mean or asked.std or asked.outputs):
        raise UsageError(f"{name} has recorded its input", hint="leave out --mean, --std and --outputs")
    given = asked.choose(teacher, images)
    if third_party:
        say_input(given, size, asked.teacher_size is not None, reporter)
    return Opened(replace(teacher, input=given), given, size, images, spec)


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

    def check(self, cache: Path, name: str | None) -> None:
        """Refuse a teacher that cannot be opened, without importing torch.

        Only ``name``, which the user typed, may choose code. The path in the manifest may come from a stranger:
        it is opened as a bancache checkpoint or not at all.

        Raises:
            UsageError: No name was given, and the manifest's teacher is not a checkpoint.
            CheckpointError: The file is missing.
        """
        from bancache.cache.reader import open_cache

        if name is not None:
            check_files(name, self.weights)
            return
        recorded = open_cache(cache).manifest.teacher.get("path", "")
        if is_third_party(recorded):
            raise UsageError(
                f"the cache's teacher is '{recorded}', which is not a checkpoint; a cache may not choose code to run",
                hint="if you trust it, name it yourself with --teacher",
            )
        if self.weights is not None:
            raise UsageError("--weights needs --teacher", hint="add --teacher, or leave out --weights")
        if not Path(recorded).exists():
            raise CheckpointError(
                f"{recorded}, the cache's teacher, is missing", hint="say where it is now with --teacher FILE"
            )

    def open(
        self, cache: Path, name: str | None, reporter: Progress
    ) -> tuple[Teacher, ImageSet, torch.device]:
        """Load the teacher that a cache was made from, with the cache's precision, and its images.

        Errors are those of ``check`` and of ``load_teacher``.
        """
        self.check(cache, name)
        from bancache.cache.reader import open_cache
        from bancache.models.teacher import load_checkpoint_teacher
        from bancache.system.device import choose_device

        device, manifest = choose_device(self.device), open_cache(cache).manifest
        images = open_images(manifest, self.data, reporter)
        if name is not None:
            return self.load(name, manifest, images, device, reporter), images, device
        precision = manifest.compute["precision"]
        path = Path(manifest.teacher.get("path", ""))
        return load_checkpoint_teacher(path, device=device, precision=precision), images, device

    def load(
        self, name: str, manifest: Manifest, images: ImageSet, device: torch.device, reporter: Progress
    ) -> Teacher:
        """Load the teacher that the user named, with the cache's precision."""
        from bancache.models.teacher import load_teacher

        return load_teacher(
            name,
            device=device,
            weights=self.weights,
            precision=manifest.compute["precision"],
            shape=(
                len(images.classes),
                images.channels,
                *(manifest.teacher_size or (images.height, images.width)),
            ),
            outputs=manifest.compute.get("outputs"),
            progress=reporter,
        )
