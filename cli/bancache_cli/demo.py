"""``bancache demo``: the whole sequence on data that everybody has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bancache_cli import console, options


def demo(
    out: Annotated[Path, typer.Option(help="A folder for everything it writes.")] = Path("runs/demo"),
    seeds: options.Seeds = "0,1,2",
    device: options.Device = "cpu",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show the born-again loop on scikit-learn's digits: teacher, cache, two students, ensemble, table, page.

    About a minute on two cores, no network. The nets are tiny and the test split is 359 images, so the
    differences mean little here; what it shows is every step of the real thing.

    Example: `bancache demo`
    """
    import torch

    from bancache_cli.generations import generations

    # Nets this small gain nothing from a second thread, and lose much where another program wants it.
    torch.set_num_threads(1)

    reporter = console.Reporter(quiet=quiet)
    reporter.note(
        "digits: 1,438 training images of 8 x 8 pixels, 9 views of each, one generation teaching the next"
    )
    generations(data="digits", out=out, students=2, seeds=seeds, device=device, as_json=as_json, quiet=quiet)
