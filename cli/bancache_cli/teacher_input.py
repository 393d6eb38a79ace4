"""What a teacher is given: as the options say, or as its checkpoint or its library records it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bancache.errors import UsageError

if TYPE_CHECKING:
    from bancache.models.teacher import Teacher
    from bancache.sources.image_set import ImageSet
    from bancache.system.progress import Progress
    from bancache.views.model_input import ModelInput
    from bancache_cli.teachers import TeacherOptions


def teacher_input(asked: TeacherOptions, teacher: Teacher, images: ImageSet) -> ModelInput:
    """Return what a teacher is given: as the options say, else as its checkpoint or its library does.

    Raises:
        UsageError: Nothing says it, or the options contradict a checkpoint or each other.
    """
    from bancache.views.model_input import ModelInput, Normalization

    if teacher.header and (asked.mean or asked.std or asked.outputs):
        raise UsageError(
            f"{teacher.path} has recorded its input", hint="leave out --mean, --std and --outputs"
        )
    size = teacher.input.size if teacher.input else None
    if asked.mean == "data" and asked.std is None:
        return ModelInput(size, Normalization(images.statistics.mean, images.statistics.std), "the data")
    if asked.mean is None and asked.std is None:
        if teacher.input is None:
            raise UsageError(
                f"nothing says how the images of teacher '{teacher.path}' are normalized",
                hint="add --mean and --std, as 0.485,0.456,0.406 and 0.229,0.224,0.225; --mean 0 --std 1 for none; "
                "or --mean data for the statistics of the data",
            )
        return teacher.input
    mean, std = (_fractions(name, value) for name, value in (("--mean", asked.mean), ("--std", asked.std)))
    return ModelInput(size, Normalization.of_fractions(mean, std, images.channels), "the options")


def _fractions(option: str, text: str | None) -> list[float]:
    try:
        numbers = [float(part) for part in (text or "").split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= 1 for number in numbers):
        raise UsageError(
            f"{option} {text or 'is missing'}: it is a number in 0..1 for each channel",
            hint="write --mean 0.5,0.5,0.5 --std 0.25,0.25,0.25",
        )
    return numbers


def say_input(known: ModelInput, images: ImageSet, reporter: Progress) -> None:
    """Say how a third-party teacher's images are normalized, and whether they have its own size."""
    reporter.note(f"the teacher's images are normalized by {input_text(known.to_dict())}")
    size = known.size
    if size is not None and size != (images.height, images.width):
        reporter.note(
            f"the teacher's own size is {size[0]}x{size[1]}, the images are {images.height}x{images.width}: "
            f"--image-size {size[0]} resizes them"
        )


def input_text(known: dict[str, Any]) -> str:
    """Return a normalization as text, from the JSON values of a teacher's input."""
    mean, std = (
        ", ".join(f"{value / 255:.3g}" for value in known["normalization"][name]) for name in ("mean", "std")
    )
    return f"mean {mean} and std {std} ({known['origin']})"


def accuracy_text(facts: dict[str, Any]) -> str:
    """Return a teacher's accuracy beside chance, and its confidence."""
    return (
        f"teacher: accuracy {facts['teacher_accuracy']:.2%}, chance {facts['chance']:.2%}, "
        f"mean largest probability {facts['teacher_mean_max_probability']:.3f}"
    )
