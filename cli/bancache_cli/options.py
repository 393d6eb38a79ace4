"""Options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bancache.models.names import model_names


def _complete_model(incomplete: str) -> list[str]:
    """Return the names that begin as what was typed; the shell asks, and torch is not loaded for it."""
    return [name for name in model_names() if name.startswith(incomplete)]


Data = Annotated[
    str,
    typer.Option(
        metavar="SOURCE",
        help="digits, cifar10:ROOT, cifar100:ROOT, fashion-mnist:ROOT, folder:PATH, parquet:PATH or npz:FILE.",
    ),
]
MaybeData = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="SOURCE", help="Read the data here instead of where it was when this was made."
    ),
]
Limit = Annotated[int | None, typer.Option(help="Use only the first N training images.", metavar="N")]
ImageSize = Annotated[
    int | None, typer.Option(help="Resize the shorter side to N pixels and crop the center.", metavar="N")
]
Download = Annotated[bool, typer.Option("--download", help="Fetch a torchvision data set that is missing.")]
Model = Annotated[
    str | None,
    typer.Option(
        help="A net's name, as `bancache models` lists them; torchvision:NAME or timm:NAME.",
        metavar="NAME",
        autocompletion=_complete_model,
    ),
]
Dropout = Annotated[float | None, typer.Option(help="Dropout inside wide residual units (the paper: 0.3).")]
CheckpointActivations = Annotated[
    bool,
    typer.Option(
        "--checkpoint-activations",
        help="DenseNets: less memory for more time, the same numbers.",
    ),
]
ShareEnds = Annotated[
    Literal["copy", "freeze", "none"] | None,
    typer.Option(
        help="Take the teacher's first and last layer: to learn on, frozen, or not. "
        "By default freeze for a match net of this teacher, as in the paper, none for others."
    ),
]
Views = Annotated[
    str | None,
    typer.Option(help="identity, flip, crop4, crop4-flip, crop4-zero-flip, with any number of pixels."),
]
NumViews = Annotated[
    str | None,
    typer.Option(
        help="Views to store of each image: a number, or all. By default one an epoch.", metavar="K|all"
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        help="root4, root8, root12, root2-64 (or -256, -1024), float32, float16, bfloat16, int8, topk-K."
    ),
]
Profile = Annotated[
    Literal["default", "compact", "mmap"],
    typer.Option(
        help="On disk: default; compact is smaller, mmap quicker to read. The answers are the same."
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="Preset epochs, batch and rates: wrn (200 epochs), densenet (300) or onecycle (30). "
        "A student takes its teacher's.",
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.")]
BatchSize = Annotated[int | None, typer.Option(help="Images a step.")]
DumpBatch = Annotated[int, typer.Option("--batch-size", help="Images a forward pass of the teacher.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Peak learning rate.")]
WeightDecay = Annotated[float | None, typer.Option(help="L2 on all parameters.")]
Loss = Annotated[
    str | None,
    typer.Option(help="ban-l (the paper's), ban (teacher alone), kd, cwtm or dkpp.", metavar="NAME"),
]
Temperature = Annotated[float | None, typer.Option(help="Temperature of loss kd.")]
Alpha = Annotated[float | None, typer.Option(help="Weight of the teacher's term of loss kd.")]
Amp = Annotated[bool | None, typer.Option("--amp/--no-amp", help="bfloat16 autocast; the default on CUDA.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the net with torch.compile.")]
Placement = Annotated[
    Literal["auto", "device", "pinned", "disk", "cpu"],
    typer.Option(
        help="Where images and teacher's answers lie: on the GPU; answers in page-locked memory or on disk, "
        "copied ahead; all on the CPU. By default where there is room. Never changes a batch."
    ),
]
Graph = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(help="Run each training step as one CUDA graph; by default where it can be captured."),
]
Seed = Annotated[int, typer.Option(help="Initial weights, order, views of generation 0.")]
Seeds = Annotated[str, typer.Option(help="Repetitions, separated by commas.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
EvalEvery = Annotated[int, typer.Option(help="Epochs between looks at the test split; 0: only the last.")]
SaveEvery = Annotated[float, typer.Option(help="Seconds between saved states; 0: after every step.")]
TensorBoard = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write every epoch there for TensorBoard, too (bancache[tensorboard])."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Where to write; by default gen0.pt, or beside what it is made from: gen0.zarr, gen1.pt, page.html."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start anew over what is there.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Fill the cache by N processes here, each with a GPU of its own.", metavar="N"),
]
Join = Annotated[
    bool, typer.Option("--join", help="Help a dump that is under way, or begin one for others to help.")
]
Rank = Annotated[
    int | None,
    typer.Option(help="Which of those that join this is; by default as the launcher says.", metavar="R"),
]
WorldSize = Annotated[int | None, typer.Option(help="How many of them join.", metavar="N")]
Force = Annotated[bool, typer.Option("--force", help="Begin although it seems not to fit on the disk.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
