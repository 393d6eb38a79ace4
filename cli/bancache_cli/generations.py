"""``bancache generations`` and ``bancache demo``: the whole born-again sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from bancache.system.device import choose_device, make_deterministic
from bancache_cli import console, early, options
from bancache_cli.first_teacher import FirstTeacherOptions, begin_with, recipe_of
from bancache_cli.groups import numbers
from bancache_cli.inputs import count_views, input_size
from bancache_cli.losses import LossOptions
from bancache_cli.many import ClusterOptions, seeds_by_workers
from bancache_cli.recipes import RecipeOptions, suit
from bancache_cli.train import architecture_for

if TYPE_CHECKING:
    import torch

    from bancache.report.results import Record
    from bancache.sources.image_set import ImageSet
    from bancache.sources.spec import DataSpec
    from bancache.study.generations import Experiment
    from bancache.system.progress import Progress
    from bancache.views import ViewSpace

_SCORES = ("accuracy", "error", "nll", "ece")
_RUN = ("generation", "seed", "out", "parameters", "seconds", "images_per_second")
_ENSEMBLE = ("name", "seed")
_CONTROL = ("role", "member", "seed", "out")


@dataclass(frozen=True)
class SequenceOptions:
    """What a sequence consists of, and where it runs."""

    out: Annotated[Path, Option(help="Folder for checkpoints, caches, results and the page.")] = Path(
        "runs/born-again"
    )
    students: Annotated[int, Option("--generations", help="Students after generation 0.")] = 3
    seeds: options.Seeds = "0"
    control: Annotated[bool, Option("--control", help="Also train label-only baselines of each student.")] = (
        False
    )
    device: options.Device = "auto"
    deterministic: options.Deterministic = False
    eval_every: options.EvalEvery = 1
    tensorboard: options.TensorBoard = None

    def runs(self, seeds: int) -> int:
        """Return how many models a sequence of so many seeds trains."""
        return seeds * (1 + self.students + self.control * (1 + self.students))


def generations(
    *,
    data: options.DataOptions,
    model: options.ModelOptions,
    teacher: FirstTeacherOptions,
    sequence: SequenceOptions,
    loss: LossOptions,
    views: options.ViewOptions,
    store: options.StoreOptions,
    recipe: RecipeOptions,
    cluster: ClusterOptions,
    output: options.OutputOptions,
) -> None:
    """Train a teacher, then students that teach one another; then their ensembles and the paper's table.

    Every step is kept: after a kill, the same command goes on, and with more seeds, generations or --control it
    trains what is missing. --control trains label-only baselines; only the difference between a student and its
    baseline shows what the soft targets do. With `--teacher` the first students learn from a teacher that is there, the
    same for every seed. With `--workers` or `--scheduler`, each worker takes a seed.

    Example: `bancache generations --data cifar100:data --model wrn-28-2 --seeds 0,1,2 --out runs/x`
    """
    from bancache.encodings import default_encoding
    from bancache.study.experiment import Experiment, check_sequence

    reporter, spec, seeds = output.reporter(), data.spec(), numbers("--seeds", sequence.seeds)
    check_sequence(sequence.students, seeds)
    chosen, known, taught = recipe_of(teacher, spec.kind, recipe, loss)
    asked = early.asked_for(model, recipe, chosen, views.views, **asdict(loss))
    recorded = early.recorded_tables(sequence.out, asked, sequence.device, store.encoding, known)
    spec = spec.as_begun(recorded.get("data", {}))
    images, test = spec.open_both(download=data.download, progress=reporter)
    from bancache.study.batch_size import dump_batch_size  # loads torch

    before, kept, device = recorded.get("sequence", {}), recorded.get("model"), _device(sequence)
    if teacher.teacher:
        first, largest, architecture = begin_with(teacher, model, images, kept, device, reporter)
    else:
        first, largest, architecture = None, None, _architecture(model, spec, images, kept, reporter)
    space = _space(views.views or before.get("views"), spec, images, architecture["image_size"])
    settled = chosen, architecture, space.name, (images, test), device, recorded.get("recipe"), reporter
    even = not taught and _is_even(recipe, spec)
    chosen = suit(recipe, *settled, even=even, runs=sequence.runs(len(seeds)))
    num_views = count_views(views.num_views, space, {"epochs": chosen.epochs})
    what, dumps = (largest or architecture, chosen, images, space, num_views), len(seeds) * sequence.students
    experiment = Experiment(
        data=spec,
        architecture=architecture,
        recipe=chosen,
        views=space.name,
        num_views=num_views,
        encoding=store.encoding or default_encoding(chosen.temperature, len(images.classes)),
        batch_size=before.get("batch_size") or dump_batch_size(*what, device, reporter, dumps=dumps),
        generations=sequence.students,
        seeds=seeds,
        controls=sequence.control,
        profile=store.profile,
        teacher=first,
    )
    _run(experiment, sequence, device, output, cluster, download=data.download)


def _device(sequence: SequenceOptions) -> torch.device:
    """Return the device, whose operations repeat their bits from now on if that is asked for."""
    if sequence.deterministic:
        make_deterministic()
    return choose_device(sequence.device)


def _architecture(
    model: options.ModelOptions,
    spec: DataSpec,
    images: ImageSet,
    recorded: dict[str, Any] | None,
    reporter: Progress,
) -> dict[str, Any]:
    """Return the architecture of all generations, where none of them is there already."""
    from bancache.training.defaults import default_model

    size = input_size(model, images, reporter, recorded=recorded)
    return architecture_for(model, images, size, default_model(spec.kind, *size), recorded, reporter)


def _is_even(recipe: RecipeOptions, spec: DataSpec) -> bool:
    """Return whether a batch size that nobody chose shall leave out few images."""
    return recipe.recipe is None and spec.kind != "digits"


def _space(name: str | None, spec: DataSpec, images: ImageSet, size: Sequence[int]) -> ViewSpace:
    """Return the views with a name, or the usual ones of such images."""
    from bancache.training.defaults import default_views
    from bancache.views import ViewSpace

    return ViewSpace.parse(name or default_views(spec.kind, size[0], size[1], ragged=not images.uniform))


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
    output.reporter().log(
        "digits: 1,438 training images of 8 x 8 pixels, 9 views of each, one generation teaching the next"
    )
    generations(
        data=options.DataOptions("digits"),
        model=options.ModelOptions(),
        teacher=FirstTeacherOptions(),
        sequence=SequenceOptions(out=out, students=2, seeds=seeds, device=device),
        loss=LossOptions(),
        views=options.ViewOptions(),
        store=options.StoreOptions(),
        recipe=RecipeOptions(),
        cluster=ClusterOptions(),
        output=output,
    )


def _run(
    experiment: Experiment,
    sequence: SequenceOptions,
    device: torch.device,
    output: options.OutputOptions,
    cluster: ClusterOptions,
    *,
    download: bool,
) -> None:
    """Run an experiment, write its page and table, print the result."""
    from bancache.report import generations_table, to_markdown, to_text, write_report
    from bancache.report.results import read_records
    from bancache.study.generations import RESULTS, run_generations
    from bancache.system.files import write_atomically
    from bancache.system.signals import interruptible

    out, reporter = sequence.out, output.reporter()
    more: dict[str, Any] = {
        "command": console.command_line(),
        "eval_every": sequence.eval_every,
        "tensorboard": sequence.tensorboard,
        "download": download,
    }
    with interruptible() as interrupt:
        if cluster.asked:
            where = (experiment.seeds, out, sequence.device, sequence.deterministic)
            seeds_by_workers(experiment, *where, cluster, more, reporter, interrupt)
        records = run_generations(
            experiment, out, device=device, progress=reporter, interrupt=interrupt, **more
        )
    shown: list[Record] = []
    while len(shown) < len(records):  # another process may have added seeds while this one was writing
        shown, table = records, generations_table(records)
        page = write_report(out / RESULTS, out / "page.html")
        write_atomically(out / "table.md", to_markdown(table).encode())
        records = read_records(out / RESULTS)
    if output.as_json:
        output.show_json({"out": str(out), "page": str(page), **_rows(records)})
        return
    for line in (*to_text(table).split("\n"), ""):
        console.say(line)
    console.say(f"page: {page}    results: {out / RESULTS}")


def _rows(records: list[Record]) -> dict[str, Any]:
    """Return one row for each model, each ensemble and each control."""

    def rows(kind: str, keys: tuple[str, ...]) -> list[dict[str, Any]]:
        return [
            {**{key: record[key] for key in keys}, **{key: record["test"][key] for key in _SCORES}}
            for record in records
            if record["kind"] == kind
        ]

    return {
        "rows": rows("run", _RUN),
        "ensembles": rows("ensemble", _ENSEMBLE),
        "controls": rows("control", _CONTROL),
    }
