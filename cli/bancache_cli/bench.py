"""``bancache bench``: what training from a cache costs here, and where the time goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bancache_cli import console, options

if TYPE_CHECKING:
    import torch

    from bancache.bench.measure import Findings
    from bancache.cache.reader import Cache
    from bancache.models.teacher import Teacher


def bench(
    cache: Annotated[Path, typer.Option(help="What `bancache dump` wrote.")],
    model: options.Model = None,
    batch_size: Annotated[int, typer.Option(help="Images a step.", min=1)] = 128,
    rounds: Annotated[int, typer.Option(help="How often everything is timed.", min=2)] = 5,
    teacher: Annotated[
        Path | None,
        typer.Option(help="The teacher's checkpoint; by default looked for beside the cache."),
    ] = None,
    data: options.MaybeData = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Time the parts of training a student from a cache on this machine, and say what holds it up.

    Views, answers, loss, the student's step with cached data and with data in place; where the teacher's
    checkpoint is found, also a dump and a student with its teacher online. Nothing is written.

    Example: `bancache bench --cache gen0.zarr --model wrn-28-2`
    """
    from bancache.bench.measure import bench as measure
    from bancache.cache.reader import open_cache
    from bancache.models import build_model
    from bancache.models.teacher import arguments_of
    from bancache.sources.spec import DataSpec
    from bancache.system.device import choose_device, environment

    where, reporter, opened = choose_device(device), console.Reporter(quiet=quiet), open_cache(cache)
    promise = opened.manifest
    images = DataSpec.from_dict(promise.dataset["spec"]).moved(data).open("train", progress=reporter)
    like = promise.teacher["architecture"]
    height, width, channels = promise.dataset["image_shape"]
    own = {"classes": promise.classes, "channels": channels, "image_size": [height, width]}
    net = build_model(**arguments_of({**own, "name": model} if model else {**own, **like}))
    found = measure(
        opened,
        images,
        net.to(where),
        batch_size=batch_size,
        device=where,
        rounds=rounds,
        teacher=_teacher(opened, teacher, where, reporter),
        progress=reporter,
    )
    if as_json:
        console.show_json({**found.to_dict(), "environment": environment(where)})
    else:
        _draw(found)


def _teacher(
    cache: Cache, named: Path | None, device: torch.device, reporter: console.Reporter
) -> Teacher | None:
    """Load the cache's teacher if its checkpoint is found; one that is named must be there, and be the one."""
    from bancache.errors import MismatchError
    from bancache.models.teacher import load_checkpoint_teacher
    from bancache.system.fingerprint import short
    from bancache.training.build import teacher_file

    path, promise = named or teacher_file(cache), cache.manifest
    if named is None and not path.is_file():
        reporter.note(f"{path}, the teacher, is not here: dump and teacher online are left out (--teacher)")
        return None
    teacher = load_checkpoint_teacher(path, device=device, precision=promise.compute["precision"])
    if teacher.fingerprint != promise.teacher["fingerprint"]:
        raise MismatchError.between(
            f"{path}: teacher",
            stored=f"'{short(promise.teacher['fingerprint'])}' (the cache was)",
            given=f"'{short(teacher.fingerprint)}'",
            hint="name the checkpoint that the cache was dumped from with --teacher",
        )
    return replace(teacher, path=str(path))


def _draw(found: Findings) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("ratio of times", "", "µs an image", "ratio", "quartiles"):
        table.add_column(title, justify="left" if title in ("ratio of times", "") else "right")
    for row in found.comparisons:
        (one, first), (other, second) = row.one, row.other
        ratio = row.ratio
        table.add_row(
            f"{one} / {other}",
            row.question,
            f"{first:,.2f} / {second:,.2f}",
            f"{ratio['median']:.3g}",
            f"{ratio['low']:.3g} to {ratio['high']:.3g}",
        )
    console.console().print(table)
    shares = ", ".join(f"{name} {share:.2%}" for name, share in found.shares.items())
    console.say(f"\na step: {shares}")
    console.say(found.bottleneck)
