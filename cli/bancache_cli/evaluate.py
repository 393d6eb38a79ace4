"""``bancache evaluate``: checkpoints and their ensemble on the test split."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from bancache.errors import MismatchError
from bancache_cli import console, options

_FIGURES = ("accuracy", "error", "nll", "ece")


def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(help="One or more checkpoints.")],
    data: options.MaybeData = None,
    download: options.Download = False,
    device: options.Device = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Test each net, and the mean of their probabilities (the paper's eq. 4).

    Example: `bancache evaluate gen1.pt gen2.pt gen3.pt`
    """
    from bancache.evaluation.predict import ensemble, predict, score
    from bancache.models.checkpoint import load_checkpoint
    from bancache.models.teacher import build_from
    from bancache.sources.spec import DataSpec
    from bancache.system.device import choose_device
    from bancache.views.renderer import Normalization

    reporter, where = console.Reporter(quiet=quiet), choose_device(device)
    loaded = [load_checkpoint(path) for path in checkpoints]
    spec = DataSpec.from_dict(loaded[0].header["data"]).moved(data)
    test = spec.open("test", download=download, progress=reporter)
    members, predictions = [], []
    for path, checkpoint in zip(checkpoints, loaded, strict=True):
        header = checkpoint.header
        if header["classes"] != list(test.classes):
            raise MismatchError.between(
                f"classes of {path}",
                stored=f"{len(header['classes'])} from '{header['classes'][0]}' on",
                given=f"{len(test.classes)} from '{test.classes[0]}' on",
                hint="evaluate nets of one data set together",
            )
        predictions.append(
            predict(
                build_from(checkpoint).to(where),
                test,
                Normalization.from_dict(header["normalisation"]),
                device=where,
                amp=header["recipe"]["amp"],
                progress=reporter,
            )
        )
        members.append({"path": str(path), **_figures(asdict(score(predictions[-1], test.labels)))})
    together = _figures(asdict(score(ensemble(predictions), test.labels)))
    if as_json:
        console.show_json({"members": members, "ensemble": together, "samples": len(test)})
    else:
        _draw(members, together, len(test))


def _figures(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: scores[name] for name in _FIGURES}


def _draw(members: list[dict[str, Any]], together: dict[str, Any], samples: int) -> None:
    from rich.table import Table

    table = Table(title=f"{samples:,} test images", title_justify="left")
    table.add_column("net")
    for name in ("accuracy", "error", "NLL", "ECE"):
        table.add_column(name, justify="right")
    rows = [*members, {"path": f"ensemble of {len(members)}", **together}] if len(members) > 1 else members
    for row in rows:
        figures = (f"{row['accuracy']:.2%}", f"{row['error']:.2%}", f"{row['nll']:.4f}", f"{row['ece']:.4f}")
        table.add_row(row["path"], *figures, end_section=row is rows[-2] if len(rows) > 1 else False)
    console.console().print(table)
