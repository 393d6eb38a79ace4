"""``bancache study``: a study that a file describes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from bancache_cli import console, options
from bancache_cli.groups import numbers
from bancache_cli.many import ClusterOptions, seeds_by_workers


def study(
    file: Annotated[Path, Argument(help="A study in TOML: docs/study.md says how to write one.")],
    out: Annotated[Path, Option(help="Folder for checkpoints, caches, results and the page.")],
    *,
    seeds: Annotated[
        str | None, Option(help="Work on these seeds of the study only, such as 0,1 (default: all).")
    ] = None,
    device: options.Device = "auto",
    deterministic: options.Deterministic = False,
    download: options.Download = False,
    eval_every: options.EvalEvery = 0,
    cluster: ClusterOptions,
    output: options.OutputOptions,
) -> None:
    """Train the arms of a study for every seed, and compare them with the baseline.

    The file is copied before the first run. After a kill, the same command goes on; arms and seeds that are added to the
    file are added to the results. Processes that work on different --seeds may share --out; `--workers 4` starts four that
    share the seeds.

    Example: `bancache study arms.toml --out runs/x`
    """
    from bancache.study.arms_file import read_study
    from bancache.study.experiment import check_seeds
    from bancache.study.given import require_there
    from bancache.study.study_folder import require_room
    from bancache.system.device import check_device_name, make_deterministic

    found, chosen = read_study(file), numbers("--seeds", seeds) if seeds is not None else None
    check_seeds(chosen or found.seeds)
    check_device_name(device)
    require_there(found.arms)
    require_room(out)
    if deterministic:
        make_deterministic()

    from bancache.study.from_file import run_study
    from bancache.study.running import Place
    from bancache.system.device import choose_device
    from bancache.system.signals import interruptible

    with interruptible() as interrupt:
        reporter = output.reporter()
        more: dict[str, Any] = {
            "command": console.command_line(),
            "eval_every": eval_every,
            "download": download,
        }
        if cluster.asked:
            where = (chosen or found.seeds, out, device, deterministic)
            seeds_by_workers(found, *where, cluster, more, reporter, interrupt)
        place = Place(device=choose_device(device), progress=reporter, interrupt=interrupt, **more)
        run_study(found, out, place, chosen)
    show_arms([out], out / "page.html", output)


def show_arms(folders: Sequence[Path], page: Path, output: options.OutputOptions) -> None:
    """Write the page of a study and its table beside it, and print the table."""
    from bancache.report import arm_rows, arms_to_markdown, arms_to_text, read_results, write_report
    from bancache.system.files import write_atomically

    table = read_results(folders).arms
    assert table is not None
    write_report(folders, page)
    # Of several pages in one folder, none replaces the table of another, nor a table.md of the user's.
    markdown = page.with_name("table.md" if page.name == "page.html" else f"{page.stem}-table.md")
    write_atomically(markdown, arms_to_markdown(table).encode())
    if output.as_json:
        output.show_json(
            {"page": str(page), "table": str(markdown), "baseline": table.baseline, "arms": arm_rows(table)}
        )
        return
    for line in (*arms_to_text(table).split("\n"), ""):
        console.say(line)
    console.say(f"page: {page}    table: {markdown}")
