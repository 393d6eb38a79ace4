"""``bancache models``: the models of the paper, with their sizes."""

from __future__ import annotations

from dataclasses import asdict

from bancache_cli import console, options


def models(as_json: options.Json = False) -> None:
    """List every model of the paper's tables with its number of parameters, beside the paper's number.

    Other sizes of the families work too: wrn-D-K, densenet-bc-D-G, preresnet-D, resnet-D, convnet-W, match-…;
    and torchvision:NAME, timm:NAME.

    Example: `bancache models --json`
    """
    from bancache.models.catalog import catalog

    rows = catalog()
    if as_json:
        console.show_json({"models": [asdict(row) for row in rows]})
        return
    titles = ("name", "note", "parameters", "trainable", "paper, M", "difference, M", "GFLOP")
    cells = [
        (
            row.name,
            row.note,
            f"{row.parameters:,}",
            f"{row.trainable:,}",
            f"{row.paper_millions:g}",
            f"{row.difference:+.2f}",
            f"{row.gflop:.2f}",
        )
        for row in rows
    ]
    console.show_table(titles, cells, left=2)
