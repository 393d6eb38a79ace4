"""``bancache evaluate``: checkpoints and their ensemble on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bancache_cli import console, options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bancache.models.checkpoint import Checkpoint
    from bancache.sources.base import ImageSet

_SCORES = ("accuracy", "error", "nll", "ece")


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
    from bancache.evaluation.predict import ensemble, predict, score
    from bancache.models.checkpoint import load_checkpoint
    from bancache.models.teacher import build_from
    from bancache.system.device import choose_device
    from bancache.views.renderer import Normalization

    reporter, where = output.reporter(), choose_device(device)
    loaded = [load_checkpoint(path) for path in checkpoints]
    test = data.spec(loaded[0].header["data"]).open("test", download=data.download, progress=reporter)

    def scores(probabilities: NDArray[np.float64]) -> dict[str, Any]:
        figures = asdict(score(probabilities, test.labels))
        return {name: figures[name] for name in _SCORES}

    members, predictions = [], []
    for path, checkpoint in zip(checkpoints, loaded, strict=True):
        _require_classes(path, checkpoint, test)
        predictions.append(
            predict(
                build_from(checkpoint).to(where),
                test,
                Normalization.from_dict(checkpoint.header["normalisation"]),
                device=where,
                amp=checkpoint.header["recipe"]["amp"],
                progress=reporter,
            )
        )
        members.append({"path": str(path), **scores(predictions[-1])})
    together = scores(ensemble(predictions))
    if output.as_json:
        console.show_json({"members": members, "ensemble": together, "samples": len(test)})
        return
    rows = [*members, {"path": f"ensemble of {len(members)}", **together}] if len(members) > 1 else members
    cells = [
        (
            row["path"],
            f"{row['accuracy']:.2%}",
            f"{row['error']:.2%}",
            f"{row['nll']:.4f}",
            f"{row['ece']:.4f}",
        )
        for row in rows
    ]
    titles = ("model", "accuracy", "error", "NLL", "ECE")
    console.show_table(titles, cells, title=f"{len(test):,} test images")


def _require_classes(path: Path, checkpoint: Checkpoint, test: ImageSet) -> None:
    classes = checkpoint.header["classes"]
    if classes != list(test.classes):
        raise MismatchError.between(
            f"classes of {path}",
            stored=f"{len(classes)}, the first '{classes[0]}'",
            given=f"{len(test.classes)}, the first '{test.classes[0]}'",
            hint="evaluate only models of one data set together",
        )
