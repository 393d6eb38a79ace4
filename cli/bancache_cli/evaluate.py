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
    *,
    checkpoints: Annotated[list[Path], typer.Argument(help="One or more checkpoints.")],
    data: options.RecordedDataOptions,
    device: options.Device = "auto",
    output: options.OutputOptions,
) -> None:
    """Evaluate each model and their ensemble, the mean of their probabilities (the paper's eq. 4).

    Example: `bancache evaluate gen1.pt gen2.pt gen3.pt`
    """
    from bancache.evaluation import evaluate as evaluate_checkpoints

    scores = evaluate_checkpoints(
        checkpoints, data=data.data, device=device, download=data.download, progress=output.reporter()
    )
    members = [
        {"path": str(path), **_figures(each)} for path, each in zip(checkpoints, scores.members, strict=True)
    ]
    together = _figures(scores)
    if output.as_json:
        console.show_json({"members": members, "ensemble": together, "samples": scores.samples})
        return
    rows = [*members, {"path": f"ensemble of {len(members)}", **together}] if len(members) > 1 else members
    cells = [
        (r["path"], f"{r['accuracy']:.2%}", f"{r['error']:.2%}", f"{r['nll']:.4f}", f"{r['ece']:.4f}")
        for r in rows
    ]
    titles = ("model", "accuracy", "error", "NLL", "ECE")
    console.show_table(titles, cells, title=f"{scores.samples:,} test images")


def _figures(scores: Scores) -> dict[str, Any]:
    return {name: getattr(scores, name) for name in _FIGURES}
