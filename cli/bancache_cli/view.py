"""``bancache view``: what teacher and student see at an address."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from bancache.system.files import require_writable
from bancache_cli import console, options
from bancache_cli.groups import numbers


def view(
    *,
    cache: options.CacheOption,
    sample: Annotated[str, Option(metavar="I,I", help="Samples, separated by commas.")],
    view: Annotated[str, Option(metavar="V,V", help="View indices, separated by commas.")],
    out: Annotated[Path, Option(metavar="DIR", help="Folder for the pictures.")],
    size: Annotated[
        int | None,
        Option(
            help="Height and width in pixels at which the student sees views (default: as its teacher).",
            min=8,
            max=4096,
        ),
    ] = None,
    data: options.RecordedDataOptions,
    output: options.OutputOptions,
) -> None:
    """Show what was done to a picture in a view, and write what teacher and student see as PNG.

    Each sample is shown in each of the views. Crops are top,left height x width in pixels of the source picture; padded
    ones may begin outside of it, at negative numbers. Boxes on the view are shares of its sides. The cache need not be
    complete.

    Example: `bancache view gen0.zarr --sample 7,9 --view 0,3 --out pictures`
    """
    from bancache.cache.manifest_io import manifest_of, read_manifest

    samples, views = numbers("--sample", sample), numbers("--view", view)
    manifest = manifest_of(read_manifest(cache))
    manifest.require_pairs(samples, views)
    require_writable(out / "sample.png")
    from bancache.study.view_pictures import write_views

    images = data.spec(manifest.dataset["spec"]).open(
        "train", download=data.download, progress=output.reporter()
    )
    students = None if size is None else (size, size)
    shown = write_views(manifest, images, samples, views, out, size=students)
    if output.as_json:
        output.show_json({"views": shown})
    else:
        _show(shown)


def _show(views: list[dict[str, Any]]) -> None:
    from bancache.views.params import params_text

    for one in views:
        source = f", {one['path']}" if one["path"] else ""
        console.say(f"sample {one['sample']}, view {one['view']}: {one['label']}{source}")
        console.say(f"  {params_text(one['params'])}")
        for who in ("teacher", "student"):
            height, width = one[who]["size"]
            console.say(f"  {who} {height}x{width}: {one[who]['file']}")
