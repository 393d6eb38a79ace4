"""``bancache dump``: a teacher's answer to every view, on disk."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bancache.errors import MismatchError, UsageError
from bancache.fingerprint import short
from bancache_cli import console, options

if TYPE_CHECKING:
    import torch

    from bancache.dump import DumpResult, DumpSettings
    from bancache.sources.base import ImageSet
    from bancache.sources.spec import DataSpec
    from bancache.teacher import Teacher
    from bancache.views import ViewSpace


def dump(
    teacher: Annotated[
        str,
        typer.Option(
            metavar="NET", help="A checkpoint, or torchvision:NAME, timm:NAME, module:function, FILE.pt2."
        ),
    ],
    out: options.Out = None,
    weights: Annotated[
        Path | None, typer.Option(help="A state dict, for a net of torchvision or timm.")
    ] = None,
    views: options.Views = None,
    num_views: options.NumViews = None,
    view_seed: Annotated[int, typer.Option(help="Decides which view is stored in which slot.")] = 0,
    encoding: options.Encoding = None,
    precision: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(help="Of the forward pass; by default as the teacher was trained."),
    ] = None,
    batch_size: options.DumpBatch = 256,
    data: options.MaybeData = None,
    limit: options.Limit = None,
    image_size: options.ImageSize = None,
    download: options.Download = False,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a teacher once over its training images and keep what it says of every view.

    A checkpoint of ours knows its data and views; a net from elsewhere needs `--data` and `--views`. Killed
    at any instant, the same command goes on where it stopped.

    Example: `bancache dump --teacher gen0.pt --num-views all`
    """
    from bancache.checkpoint import load_checkpoint
    from bancache.runtime import choose_device
    from bancache.sources.spec import DataSpec
    from bancache.teacher import is_foreign, load_teacher

    reporter, where = console.Reporter(quiet=quiet), choose_device(device)
    foreign = is_foreign(teacher)
    if foreign and (data is None or views is None):
        raise UsageError(f"teacher '{teacher}' does not know its data", hint="add --data and --views")
    if foreign:
        sys.path.append("")  # as `python -m` has it first: a net of one's own lies in the folder one works in
    header = {} if foreign else load_checkpoint(Path(teacher)).header
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
    loaded = load_teacher(
        teacher,
        device=where,
        weights=weights,
        precision=precision or ("bfloat16" if trained_amp else "float32"),
        shape=(len(images.classes), images.channels, images.height, images.width),
    )
    settings = _settings(loaded, images, views, num_views, view_seed, encoding, batch_size)
    target = out or default_name(teacher)
    result = _dump(loaded, images, spec, target, settings, where, overwrite, reporter)
    _tell(result, as_json=as_json)


def _settings(
    teacher: Teacher,
    images: ImageSet,
    views: str | None,
    num_views: str | None,
    view_seed: int,
    encoding: str | None,
    batch_size: int,
) -> DumpSettings:
    from bancache.dump import DumpSettings
    from bancache.encodings import default_encoding
    from bancache.views import ViewSpace
    from bancache.views.apply import Normalisation

    space = ViewSpace.parse(views or teacher.header["views"], seed=view_seed)
    recipe = teacher.header.get("recipe")
    statistics = images.statistics
    known = teacher.header.get("normalisation")
    return DumpSettings(
        space=space,
        num_views=count_views(num_views, space, recipe),
        encoding=encoding or default_encoding(recipe["temperature"] if recipe else 1.0),
        batch_size=batch_size,
        normalisation=Normalisation.from_dict(known)
        if known
        else Normalisation(statistics.mean, statistics.std),
    )


def default_name(teacher: str) -> Path:
    """Return what a cache is called: beside a teacher's file, or after its name in the current folder."""
    if Path(teacher).is_file():
        return Path(teacher).with_suffix(".zarr")
    return Path(f"{teacher.replace(':', '-').replace('/', '-')}.zarr")


def count_views(text: str | None, space: ViewSpace, recipe: dict[str, Any] | None) -> int:
    """Return the number that ``--num-views`` means; where it is not given, what the teacher's recipe suggests."""
    from bancache.train.defaults import default_num_views

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


def _dump(
    teacher: Teacher,
    images: ImageSet,
    spec: DataSpec,
    out: Path,
    settings: DumpSettings,
    device: torch.device,
    overwrite: bool,
    reporter: console.Reporter,
) -> DumpResult:
    from bancache.dump import dump
    from bancache.results import append_record
    from bancache.runtime import environment, interruptible

    with interruptible() as interrupt:
        result = dump(
            teacher,
            images,
            spec.resolved(),
            out,
            settings,
            device=device,
            overwrite=overwrite,
            progress=reporter,
            interrupt=interrupt,
        )
    if result.entries:
        where = {"command": console.command_line(), "environment": environment(device)}
        seed = teacher.header.get("seed", 0)
        append_record(out.parent / "results.jsonl", {**result.record(), "seed": seed, **where})
    return result


def _tell(result: DumpResult, *, as_json: bool) -> None:
    record = result.record()
    if as_json:
        record.pop("kind")
        console.show_json(record)
        return
    kl = record["fidelity"]["1"]["kl_mean"]
    rate = f", {record['images_per_second']:,.0f} images/s" if record["images_per_second"] else ""
    every = " (all there are)" if record["views"] == _lattice_size(result) else ""
    console.say(
        f"{record['out']}: {record['views']} views{every} of {record['samples']:,} images, "
        f"{record['encoding']}, {console.bytes_text(record['bytes'])}, "
        f"{record['bytes_per_entry']:.1f} bytes an entry, "
        f"KL from the teacher {kl:.1e} nats, {record['seconds']:,.1f} s{rate}"
    )


def _lattice_size(result: DumpResult) -> int:
    from bancache.views import ViewSpace

    return ViewSpace.from_dict(result.cache.manifest.view_space).size
