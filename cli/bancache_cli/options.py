"""Options that several commands share: single ones, and groups that a command takes as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from bancache.encodings import KNOWN as ENCODINGS
from bancache.models.names import model_names
from bancache.system.device import make_deterministic
from bancache.system.progress import Progress, Silent
from bancache_cli import console

if TYPE_CHECKING:
    import torch

    from bancache.sources.spec import DataSpec
    from bancache.training import TrainerOptions


def completes(*words: str) -> Callable[[str], list[str]]:
    """Return what completes a value in the shell."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


CachePath = Annotated[Path, Argument(help="A cache that `bancache dump` wrote.")]
CacheOrPack = Annotated[
    Path, Argument(help="A cache that `bancache dump` wrote, or a pack that `bancache pack` wrote.")
]
CacheOption = Annotated[
    Path, Option(help="A cache that `bancache dump` wrote, or its address, such as s3://bucket/gen0.zarr.")
]
KeepLocal = Annotated[
    float,
    Option(
        metavar="GB",
        help="Of a --cache in an object store, keep so much in the user's cache directory, for later epochs and runs.",
        show_default=False,
    ),
]
MaybeData = Annotated[
    str | None, Option("--data", metavar="SOURCE", help="Where the data is now (default: where it was).")
]
Download = Annotated[bool, Option("--download", help="Download a torchvision data set if it is missing.")]
Limit = Annotated[
    int | None, Option(help="Use only N training images, equally many of each class.", metavar="N")
]
ImageSize = Annotated[
    int | None, Option(help="Resize the shorter side to N pixels and crop the center.", metavar="N")
]
SkipBad = Annotated[bool, Option("--skip-bad", help="Leave out pictures that cannot be read.")]
Views = Annotated[
    str | None,
    Option(
        help="Augmentation, such as crop4-flip or rrc-flip-rand-m9-n2-mixup0.8; imagenet, tinyvit, deit: docs/views.md.",
        autocompletion=completes(
            "identity", "flip", "crop4-flip", "crop4-zero-flip", "rrc-flip", "imagenet", "tinyvit", "deit"
        ),
    ),
]
Seeds = Annotated[str, Option(help="Seeds of the repetitions, separated by commas.")]
Device = Annotated[str, Option(help="auto, cpu, cuda or cuda:1.")]
Deterministic = Annotated[
    bool, Option("--deterministic", help="On a GPU: the same bits each time on one kind of GPU; slower.")
]
EvalEvery = Annotated[
    int, Option(help="Evaluate on the test split every N epochs; 0: only at the end.", min=0)
]
TensorBoard = Annotated[
    Path | None, Option(metavar="DIR", help="Also write a TensorBoard log there (bancache[tensorboard]).")
]
Out = Annotated[
    Path | None,
    Option(help="Output path (default: gen0.pt, or next to the input: gen0.zarr, gen1.pt, page.html)."),
]
Overwrite = Annotated[bool, Option("--overwrite", help="Start anew and replace the output.")]
Json = Annotated[bool, Option("--json", help="Print one JSON object on stdout and nothing else there.")]


Model = Annotated[
    str | None,
    Option(
        help="A model from `bancache models`, torchvision:NAME or timm:NAME.",
        metavar="NAME",
        autocompletion=completes(*model_names()),
    ),
]


@dataclass(frozen=True)
class OutputOptions:
    """How a command reports."""

    as_json: Json = False
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress and no notes on stderr.")] = False
    said: console.Said = field(default_factory=console.Said, init=False)

    def reporter(self, rank: int = 0) -> Progress:
        """Return what shows progress; of several ranks, only the first one does."""
        return console.Reporter(self.said, quiet=self.quiet) if rank == 0 else Silent()

    def show_json(self, facts: dict[str, Any]) -> None:
        """Print a result on stdout as one JSON object, with what the command noted and warned of."""
        console.show_json({**facts, **asdict(self.said)})

    def show(self, facts: dict[str, Any], text: str) -> None:
        """Print a result on stdout: as JSON, or as text."""
        if self.as_json:
            self.show_json(facts)
        else:
            console.say(text)


@dataclass(frozen=True)
class DataOptions:
    """A data set."""

    data: Annotated[
        str,
        Option(
            metavar="SOURCE",
            help="digits, cifar10:ROOT, cifar100:ROOT, fashion-mnist:ROOT, folder:PATH, parquet:PATH, npz:FILE or pack:FILE.",
        ),
    ]
    limit: Limit = None
    image_size: ImageSize = None
    skip_bad: SkipBad = False
    download: Download = False

    def spec(self) -> DataSpec:
        """Return the data set as the library names it."""
        from bancache.sources.spec import DataSpec

        return DataSpec(self.data, self.limit, self.image_size, self.skip_bad)


@dataclass(frozen=True)
class RecordedDataOptions:
    """A data set that the command's input has recorded."""

    data: MaybeData = None
    download: Download = False

    def spec(self, recorded: dict[str, Any]) -> DataSpec:
        """Return the recorded data set, at its new location if one is given."""
        from bancache.sources.spec import DataSpec

        return DataSpec.from_dict(recorded).moved(self.data)


@dataclass(frozen=True)
class TeacherDataOptions(RecordedDataOptions):
    """The data set that a teacher runs on."""

    limit: Limit = None
    image_size: ImageSize = None
    skip_bad: SkipBad = False


@dataclass(frozen=True)
class ModelOptions:
    """A model and its arguments."""

    model: Model = None
    size: Annotated[
        int | None,
        Option(
            help="Height and width in pixels at which the model sees views (default: the images' own; a student's: "
            "as its teacher).",
            min=8,
            max=4096,
        ),
    ] = None
    dropout: Annotated[float | None, Option(help="Dropout inside wide residual units (the paper: 0.3).")] = (
        None
    )
    checkpoint_activations: Annotated[
        bool,
        Option("--checkpoint-activations", help="DenseNet: use less memory and more time; same results."),
    ] = False

    def change(self, architecture: dict[str, Any]) -> dict[str, Any]:
        """Return an architecture with the given arguments replaced."""
        given = {
            "dropout": self.dropout,
            "checkpoint_activations": self.checkpoint_activations or None,
            "image_size": None if self.size is None else [self.size, self.size],
        }
        return architecture | {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True)
class TrainerFlags:
    """Where and how a training runs."""

    seed: Annotated[
        int,
        Option(
            min=0,
            max=(1 << 53) - 1,
            help="Seed of the first weights, the order, and generation 0's augmentation.",
        ),
    ] = 0
    device: Device = "auto"
    deterministic: Deterministic = False
    placement: Annotated[
        Literal["auto", "device", "pinned", "disk", "cpu"],
        Option(
            help="Memory for images and soft targets: device (GPU), pinned (page-locked), disk, cpu "
            "(default: the fastest that fits). The batches are the same."
        ),
    ] = "auto"
    graph: Annotated[
        Literal["auto", "on", "off"],
        Option(help="Run each training step as one CUDA graph (default: if it can be captured)."),
    ] = "auto"
    eval_every: EvalEvery = 1
    save_every: Annotated[
        float, Option(help="Save the training state every N seconds; 0: after every step.", min=0)
    ] = 60.0
    tensorboard: TensorBoard = None
    overwrite: Overwrite = False

    def choose_device(self, local: int) -> torch.device:
        """Return the device of this process, whose operations repeat their bits from now on if that is asked for."""
        from bancache.system.device import choose_device

        if self.deterministic:
            make_deterministic()
        return choose_device(self.device, local=local)

    def trainer(self, out: Path, device: torch.device, teacher: Path | None = None) -> TrainerOptions:
        """Return the options of a trainer that writes ``out``."""
        from bancache.training import TrainerOptions

        given = {key: value for key, value in vars(self).items() if key not in ("seed", "deterministic")}
        return TrainerOptions(out, **{**given, "device": device}, teacher=teacher)


@dataclass(frozen=True)
class ViewOptions:
    """The views that a cache stores."""

    views: Views = None
    num_views: Annotated[
        str | None,
        Option(help="Views stored per image: a number or all (default: one per epoch).", metavar="K|all"),
    ] = None


@dataclass(frozen=True)
class SeededViewOptions(ViewOptions):
    """The views that a cache stores, and their draw."""

    view_seed: Annotated[int, Option(help="Seed that decides what each view shows.")] = 0


@dataclass(frozen=True)
class StoreOptions:
    """How a cache stores soft targets."""

    encoding: Annotated[
        str | None,
        Option(
            help="root4, root8, root12, root2-64 (or -256, -1024), float32, float16, bfloat16, int8, topk-K.",
            autocompletion=completes(*ENCODINGS),
        ),
    ] = None
    profile: Annotated[
        Literal["default", "compact", "mmap"],
        Option(help="Layout on disk: compact is smaller, mmap is faster to read. Same soft targets."),
    ] = "default"
