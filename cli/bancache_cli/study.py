"""``bancache study``: a study that a file describes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from bancache_cli import console, options
from bancache_cli.groups import numbers


def study(
    file: Annotated[Path, Argument(help="A study in TOML: docs/study.md says how to write one.")],
    out: Annotated[Path, Option(help="Folder for checkpoints, caches, results and the page.")],
    *,
    seeds: Annotated[
        str | None, Option(help="Work on these seeds of the study only, such as 0,1 (default: all).")
    ] = None,
    device: options.Device = "auto",
    download: options.Download = False,
    eval_every: options.EvalEvery = 0,
    output: options.OutputOptions,
) -> None:
    """Train the arms of a study for every seed, and compare them with the baseline.

    The file is copied before the first run. After a kill, the same command goes on; arms and seeds that are added to the
    file are added to the results. Processes that work on different --seeds may share --out.

    Example: `bancache study arms.toml --out runs/x`
    """
    from bancache.study.arms_file import read_study
    from bancache.study.study_folder import require_room
    from bancache.system.device import check_device_name

    found, chosen = read_study(file), numbers("--seeds", seeds) if seeds is not None else None
    check_device_name(device)
    require_room(out)

    from bancache.study.from_file import run_study
    from bancache.study.running import Place
    from bancache.system.device import choose_device
    from bancache.system.signals import interruptible

    with interruptible() as interrupt:
        place = Place(
            device=choose_device(device),
            command=console.command_line(),
            eval_every=eval_every,
            download=download,
            progress=output.reporter(),
            interrupt=interrupt,
        )
        records = run_study(found, out, place, chosen)
    output.show({"out": str(out), "lines": len(records)}, f"results: {out / 'results.jsonl'}")
