"""``bancache demo``: the whole sequence on scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from bancache_cli import options
from bancache_cli.generations import SequenceOptions, generations


def demo(
    *,
    out: Annotated[Path, Option(help="Folder for everything that is written.")] = Path("runs/demo"),
    seeds: options.Seeds = "0,1,2",
    device: options.Device = "cpu",
    output: options.OutputOptions,
) -> None:
    """Run the born-again sequence on scikit-learn's digits: teacher, cache, two students, ensemble, table, page.

    Takes about a minute on two cores and needs no network. The models are tiny and the test split has 359
    images, so the differences between them mean little; the demo shows the steps.

    Example: `bancache demo`
    """
    import torch

    # Models this small gain nothing from a second thread, and lose much if another program needs the core.
    torch.set_num_threads(1)
    output.reporter().note(
        "digits: 1,438 training images of 8 x 8 pixels, 9 views of each, one generation teaching the next"
    )
    generations(
        data=options.DataOptions("digits"),
        model=options.ModelOptions(),
        sequence=SequenceOptions(out=out, students=2, seeds=seeds, device=device),
        loss=options.LossOptions(),
        views=options.ViewOptions(),
        store=options.StoreOptions(),
        recipe=options.RecipeOptions(),
        output=output,
    )
