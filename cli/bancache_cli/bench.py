"""``bancache bench``: the cost of training from a cache on this machine, part by part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from bancache_cli import console, options

if TYPE_CHECKING:
    import torch

    from bancache.bench.measure import Findings
    from bancache.cache.reader import Cache
    from bancache.models.teacher import Teacher


def bench(
    *,
    cache: options.CacheOption,
    model: options.Model = None,
    batch_size: Annotated[int, Option(help="Images per step.", min=1)] = 128,
    rounds: Annotated[int, Option(help="Repetitions of each measurement.", min=2)] = 5,
    teacher: Annotated[
        Path | None, Option(help="The teacher's checkpoint (default: next to the cache).")
    ] = None,
    data: options.MaybeData = None,
    device: options.Device = "auto",
    output: options.OutputOptions,
) -> None:
    """Time the parts of training a student from a cache on this machine, and name the bottleneck.

    Measures views, targets, loss, and the student's step with cached data and with data in place. If the
    teacher's checkpoint is found, also a dump, and a student with its teacher online. Writes nothing.

    Example: `bancache bench --cache gen0.zarr --model wrn-28-2`
    """
    from bancache.bench.measure import bench as measure
    from bancache.cache.reader import open_cache
    from bancache.models import build_model
    from bancache.models.teacher import arguments_of
    from bancache.system.device import choose_device, environment
    from bancache_cli.teachers import open_images

    where, reporter, opened = choose_device(device), output.reporter(), open_cache(cache)
    manifest = opened.manifest
    images = open_images(manifest, data, reporter)
    height, width, channels = manifest.dataset["image_shape"]
    own = {"classes": manifest.classes, "channels": channels, "image_size": [height, width]}
    architecture = {"name": model} if model else manifest.teacher["architecture"]
    found = measure(
        opened,
        images,
        build_model(**arguments_of({**own, **architecture})).to(where),
        batch_size=batch_size,
        device=where,
        rounds=rounds,
        teacher=_teacher(opened, teacher, where, reporter),
        progress=reporter,
    )
    if output.as_json:
        console.show_json({**found.to_dict(), "environment": environment(where)})
    else:
        _show(found)


def _teacher(
    cache: Cache, named: Path | None, device: torch.device, reporter: console.Reporter
) -> Teacher | None:
    """Load the cache's teacher if its checkpoint exists; raise ``MismatchError`` if it is another one."""
    from bancache.errors import MismatchError
    from bancache.models.teacher import load_checkpoint_teacher
    from bancache.system.fingerprint import short
    from bancache.training.build import teacher_file

    path, manifest = named or teacher_file(cache), cache.manifest
    if named is None and not path.is_file():
        reporter.note(f"the teacher {path} is missing: dump and online teacher are left out (--teacher)")
        return None
    teacher = load_checkpoint_teacher(path, device=device, precision=manifest.compute["precision"])
    if teacher.fingerprint != manifest.teacher["fingerprint"]:
        raise MismatchError.between(
            f"{path}: teacher",
            stored=f"'{short(manifest.teacher['fingerprint'])}' (the cache was)",
            given=f"'{short(teacher.fingerprint)}'",
            hint="name the cache's own teacher with --teacher",
        )
    return replace(teacher, path=str(path))


def _show(found: Findings) -> None:
    rows = []
    for row in found.comparisons:
        (one, first), (other, second), ratio = row.one, row.other, row.ratio
        times, quartiles = f"{first:,.2f} / {second:,.2f}", f"{ratio['low']:.3g} to {ratio['high']:.3g}"
        rows.append((f"{one} / {other}", row.question, times, f"{ratio['median']:.3g}", quartiles))
    titles = ("ratio of times", "", "µs per image", "ratio", "quartiles")
    console.show_table(titles, rows, left=2, box=None, pad_edge=False)
    shares = ", ".join(f"{name} {share:.2%}" for name, share in found.shares.items())
    console.say(f"\na step: {shares}")
    console.say(found.bottleneck)
