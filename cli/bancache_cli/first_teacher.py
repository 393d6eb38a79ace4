"""``bancache generations --teacher``: a sequence that begins with a teacher that is there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from bancache.errors import UsageError
from bancache.models.names import is_third_party
from bancache.training.recipe import own_name
from bancache.training.recorded import header_of
from bancache_cli import options
from bancache_cli.inputs import input_size, like_teacher
from bancache_cli.losses import LossOptions
from bancache_cli.recipes import RecipeOptions
from bancache_cli.teacher_files import check_files, with_weights
from bancache_cli.teachers import TeacherOptions, open_on
from bancache_cli.train import architecture_for

if TYPE_CHECKING:
    import torch

    from bancache.sources.image_set import ImageSet
    from bancache.study.arms import Given
    from bancache.system.progress import Progress
    from bancache.training import Recipe


@dataclass(frozen=True)
class FirstTeacherOptions(TeacherOptions):
    """The teacher of the first students, in the place of generation 0."""

    teacher: Annotated[
        list[str] | None,
        Option(
            metavar="MODEL",
            help="Begin with a teacher that is there, as `bancache dump` takes it, and do not train generation 0.",
        ),
    ] = None  # type: ignore[assignment]


def _check(asked: FirstTeacherOptions) -> None:
    """Refuse a teacher that is not there, and options of a teacher without one, without importing torch."""
    if not asked.teacher:
        if asked != FirstTeacherOptions():
            names = [
                key for key, value in asdict(asked).items() if value != getattr(FirstTeacherOptions(), key)
            ]
            option = f"--{names[0].replace('_', '-')}"
            raise UsageError(f"{option} is of a teacher that is there", hint="add --teacher, or leave it out")
        return
    for name, weights in with_weights(asked.teacher, asked.weights):
        check_files(name, weights)


def recipe_of(
    asked: FirstTeacherOptions, kind: str, recipe: RecipeOptions, loss: LossOptions
) -> tuple[Recipe, dict[str, Any], bool]:
    """Return the recipe of the students, what run.toml says of the teacher, and whether its recipe is theirs by default.

    Of other teachers than one checkpoint, only loading them says that.

    Raises:
        CheckpointError: A teacher or its weights are missing.
        UsageError: An option of a teacher stands without one, the recipe makes no sense, or its loss is code.
    """
    from bancache.training.defaults import student_recipe

    _check(asked)
    headers = (
        []
        if not asked.teacher
        else [None if is_third_party(n) else header_of(Path(n)) for n in asked.teacher]
    )
    taught = headers[0].get("recipe") if headers and headers[0] else None
    chosen = student_recipe(kind, recipe.recipe, taught, **recipe.changes(), **asdict(loss))
    if own_name(chosen.loss):
        raise UsageError(
            f"a sequence goes on from what its folder records, and that cannot be code: --loss {chosen.loss}",
            hint="train the students one by one with `bancache train-student`, or choose another one, such as --loss ban-l",
        )
    if not headers:
        return chosen, {"teacher": None}, False
    known = {"teacher": headers[0]["weights"]} if len(headers) == 1 and headers[0] else {}
    return chosen, known, taught is not None


def begin_with(
    asked: FirstTeacherOptions,
    model: options.ModelOptions,
    images: ImageSet,
    recorded: dict[str, Any] | None,
    device: torch.device,
    reporter: Progress,
) -> tuple[Given, dict[str, Any] | None, dict[str, Any]]:
    """Load the teacher, and return how to load it again, its architecture and that of its students, by default its own.

    The architecture of a teacher that no name builds is None.
    """
    from bancache.study.arms import Given

    teacher, size = open_on(asked, images, device, reporter)
    given, own = Given(partial(open_on, asked), teacher.fingerprint), teacher.architecture
    built = own if "classes" in own else None
    if model.model is not None:
        size = input_size(model, images, reporter, size)
        return given, built, architecture_for(model, images, size, model.model, None, reporter)
    if built is None:
        raise UsageError(f"a student cannot be built like '{own['name']}'", hint="add --model NAME")
    return given, built, model.change(like_teacher(built, size, recorded))
