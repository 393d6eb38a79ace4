"""``bancache generations``: the whole born-again sequence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bancache.errors import UsageError
from bancache_cli import console, options

if TYPE_CHECKING:
    import torch

    from bancache.report.results import Record
    from bancache.study.generations import Experiment


def generations(
    data: options.Data = "digits",
    model: options.Model = None,
    out: Annotated[Path, typer.Option(help="A folder for checkpoints, caches, results and the page.")] = Path(
        "runs/born-again"
    ),
    students: Annotated[int, typer.Option("--generations", help="Students after generation 0.")] = 3,
    seeds: options.Seeds = "0",
    control: Annotated[
        bool, typer.Option("--control", help="Also train each student's twin without a teacher.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Seeds to train at a time, each in its own process.")] = 1,
    loss: options.Loss = None,
    temperature: options.Temperature = None,
    alpha: options.Alpha = None,
    views: options.Views = None,
    num_views: options.NumViews = None,
    encoding: options.Encoding = None,
    profile: options.Profile = "default",
    recipe: options.RecipeName = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    lr: options.LearningRate = None,
    weight_decay: options.WeightDecay = None,
    dropout: options.Dropout = None,
    checkpoint_activations: options.CheckpointActivations = False,
    limit: options.Limit = None,
    image_size: options.ImageSize = None,
    download: options.Download = False,
    amp: options.Amp = None,
    compile_net: options.Compile = False,
    device: options.Device = "auto",
    eval_every: options.EvalEvery = 1,
    tensorboard: options.TensorBoard = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a teacher, then students that teach one another; then their ensembles and the paper's table.

    Every step is kept: killed at any instant, the same command goes on. More seeds, generations or controls asked
    for later add only what is missing. With --control each student also has a twin that is taught by labels alone,
    without which its gain, and the ensembles', says little.

    Example: `bancache generations --data cifar100:data --model wrn-28-2 --seeds 0,1,2 --out runs/x`
    """
    from bancache.encodings import default_encoding
    from bancache.sources.spec import DataSpec
    from bancache.study.generations import Experiment
    from bancache.system.device import choose_device
    from bancache.training.defaults import default_model, default_recipe, default_views
    from bancache.views import ViewSpace
    from bancache_cli.teachers import count_views
    from bancache_cli.training import architecture_for, recipe_changes

    reporter, where = console.Reporter(quiet=quiet), choose_device(device)
    spec = DataSpec(data, limit, image_size)
    images = spec.open("train", download=download, progress=reporter)
    size = (images.height, images.width)
    changes = recipe_changes(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        amp=amp,
        compile_net=compile_net,
        device_type=where.type,
    )
    changes |= {"loss": loss, "temperature": temperature, "alpha": alpha}
    chosen = default_recipe(spec.kind, recipe, **changes)
    space = ViewSpace.parse(views or default_views(spec.kind, *size))
    study = Experiment(
        data=spec,
        architecture=architecture_for(
            model or default_model(spec.kind, *size), images, dropout, checkpoint_activations
        ),
        recipe=chosen,
        views=space.name,
        num_views=count_views(num_views, space, {"epochs": chosen.epochs}),
        encoding=encoding or default_encoding(chosen.temperature, len(images.classes)),
        batch_size=256,
        generations=students,
        seeds=read_seeds(seeds),
        controls=control,
        profile=profile,
    )
    run_and_tell(
        study,
        out,
        device=where,
        eval_every=eval_every,
        tensorboard=tensorboard,
        download=download,
        as_json=as_json,
        reporter=reporter,
        jobs=jobs,
        quiet=quiet,
    )


def run_and_tell(
    study: Experiment,
    out: Path,
    *,
    device: torch.device,
    eval_every: int,
    tensorboard: Path | None,
    download: bool,
    as_json: bool,
    reporter: console.Reporter,
    jobs: int = 1,
    quiet: bool = False,
) -> None:
    """Carry a study out, write its page and tables, print the result."""
    from bancache.report import generations_table, to_markdown, to_text, write_report
    from bancache.study.generations import RESULTS, run_generations
    from bancache.system.device import interruptible
    from bancache.system.files import write_atomically
    from bancache_cli.jobs import run_jobs

    settings: dict[str, Any] = {
        "device": device,
        "command": console.command_line(),
        "eval_every": eval_every,
        "tensorboard": tensorboard,
    }
    if jobs > 1:
        run_jobs(study, out, jobs, quiet=quiet, **settings)
    with interruptible() as interrupt:  # after the jobs it finds everything done
        records = run_generations(
            study, out, download=download, progress=reporter, interrupt=interrupt, **settings
        )
    page = write_report(out / RESULTS, out / "page.html")
    table = generations_table(records)
    write_atomically(out / "table.md", to_markdown(table).encode())
    if as_json:
        console.show_json({"out": str(out), "page": str(page), **_rows(records)})
        return
    console.say(to_text(table))
    console.say(f"\npage: {page}    results: {out / RESULTS}")


def read_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds that a list such as ``0,1,2`` names."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"seeds are numbers separated by commas, not '{text}'") from error


def _rows(records: list[Record]) -> dict[str, Any]:
    """Return one row for each net, each ensemble and each control."""
    figures = ("accuracy", "error", "nll", "ece")
    runs = [
        {
            "generation": r["generation"],
            "seed": r["seed"],
            "out": r["out"],
            "parameters": r["parameters"],
            "seconds": r["seconds"],
            "images_per_second": r["images_per_second"],
            **{name: r["test"][name] for name in figures},
        }
        for r in records
        if r["kind"] == "run"
    ]
    ensembles = [
        {"name": r["name"], "seed": r["seed"], **{name: r["test"][name] for name in figures}}
        for r in records
        if r["kind"] == "ensemble"
    ]
    controls = [
        {
            **{name: r[name] for name in ("role", "member", "seed", "out")},
            **{name: r["test"][name] for name in figures},
        }
        for r in records
        if r["kind"] == "control"
    ]
    return {"rows": runs, "ensembles": ensembles, "controls": controls}
