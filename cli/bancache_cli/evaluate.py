"""``bancache evaluate``: checkpoints and their ensemble on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bancache_cli import console, options

if TYPE_CHECKING:
    from bancache.evaluation import Scores

_FIGURES = ("accuracy", "error", "nll", "ece")


def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(help="One or more checkpoints.")],
    data: options.MaybeData = None,
    download: options.Download = False,
    device: options.Device = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Test each model, and the mean of their probabilities (the paper's eq. 4).

    Example: `bancache evaluate gen1.pt gen2.pt gen3.pt`
    """
    from bancache import evaluation

    reporter = console.Reporter(quiet=quiet)
    scores = evaluation.evaluate(checkpoints, data=data, device=device, download=download, progress=reporter)
    members = [
        {"path": str(path), **_figures(each)} for path, each in zip(checkpoints, scores.members, strict=True)
    ]
    together = _figures(scores)
    if as_json:
        console.show_json({"members": members, "ensemble": together, "samples": scores.samples})
    else:
        _draw(members, together, scores.samples)


def _figures(scores: Scores) -> dict[str, Any]:
    return {name: getattr(scores, name) for name in _FIGURES}


def _draw(members: list[dict[str, Any]], together: dict[str, Any], samples: int) -> None:
    from rich.table import Table

    table = Table(title=f"{samples:,} test images", title_justify="left")
    table.add_column("model")
    for name in ("accuracy", "error", "NLL", "ECE"):
        table.add_column(name, justify="right")
    rows = [*members, {"path": f"ensemble of {len(members)}", **together}] if len(members) > 1 else members
    for row in rows:
        figures = (f"{row['accuracy']:.2%}", f"{row['error']:.2%}", f"{row['nll']:.4f}", f"{row['ece']:.4f}")
        table.add_row(row["path"], *figures, end_section=row is rows[-2] if len(rows) > 1 else False)
    console.console().print(table)
