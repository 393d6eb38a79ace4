"""``bancache models``: the nets of the paper, counted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bancache_cli import console, options


def models(as_json: options.Json = False) -> None:
    """List every net of the paper's tables with its parameters, beside the paper's figure.

    Families take other sizes too: wrn-D-K, densenet-bc-D-G, preresnet-D, resnet-D, convnet-W, match-…;
    and torchvision:NAME, timm:NAME.

    Example: `bancache models --json`
    """
    from bancache.models.catalog import catalog

    rows = [asdict(row) for row in catalog()]
    if as_json:
        console.show_json({"models": rows})
    else:
        _draw(rows)


def _draw(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table()
    table.add_column("name", no_wrap=True)
    for title in ("parameters", "trainable", "paper, M", "difference, M", "GFLOP"):
        table.add_column(title, justify="right")
    table.add_column("note", overflow="fold")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['parameters']:,}",
            f"{row['trainable']:,}",
            f"{row['paper_millions']:g}",
            f"{row['difference']:+.2f}",
            f"{row['gflop']:.2f}",
            row["note"],
        )
    console.console().print(table)
