"""What a third-party model is given, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from bancache.errors import UsageError

if TYPE_CHECKING:
    from bancache.models.teacher import Teacher
    from bancache.sources.image_set import ImageSet
    from bancache.system.progress import Progress
    from bancache.views.model_input import ModelInput


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """The normalization of a third-party model's images."""

    mean: Annotated[
        str | None,
        Option(
            metavar="M,M,M",
            help="Mean of a third-party model's pixels, in 0..1, or data (default: as timm or torchvision says).",
        ),
    ] = None
    std: Annotated[
        str | None,
        Option(metavar="S,S,S", help="Standard deviation of a third-party model's pixels, in 0..1."),
    ] = None

    def choose(self, teacher: Teacher, images: ImageSet) -> ModelInput:
        """Return a third-party teacher's input; errors are those of ``choose_input``."""
        from bancache.models.own_input import choose_input
        from bancache.views.model_input import Normalization

        given = self.parsed()
        if given["mean"] == "data":
            given["mean"] = Normalization(images.statistics.mean, images.statistics.std)
        return choose_input(teacher.path, teacher.input, **given, channels=images.channels)

    def parsed(self) -> dict[str, Any]:
        """Return ``mean`` and ``std`` as lists of numbers, None or ``data``."""
        return {
            "mean": self.mean if self.mean in {None, "data"} else _fractions("--mean", str(self.mean)),
            "std": None if self.std is None else _fractions("--std", self.std),
        }


def _fractions(option: str, text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= 1 for number in numbers):
        raise UsageError(
            f"{option} {text}: it is a number in 0..1 for each channel",
            hint="write --mean 0.5,0.5,0.5 --std 0.25,0.25,0.25",
        )
    return numbers


def say_input(teacher: Teacher, size: tuple[int, int], given: bool, reporter: Progress) -> None:
    """Say how a third-party model's images are normalized, and at which size it sees them."""
    known = teacher.input
    assert known is not None
    reporter.note(f"{teacher.path}: the images are normalized by {input_text(known.to_dict())}")
    own = " (its own size; another by --teacher-size)" if known.size == size and not given else ""
    if known.size not in (None, size) and not given:
        own = f"; it records {known.size[0]}x{known.size[1]}: --teacher-size {known.size[0]}"
    reporter.note(f"the model sees views of {size[0]}x{size[1]} pixels{own}")


def input_text(known: dict[str, Any]) -> str:
    """Return a normalization as text, from the JSON values of a teacher's input."""
    from bancache.views.model_input import Normalization

    return f"{Normalization.from_dict(known['normalization']).text} ({known['origin']})"


def accuracy_text(facts: dict[str, Any]) -> str:
    """Return a teacher's accuracy beside chance, and its confidence."""
    return (
        f"teacher: accuracy {facts['teacher_accuracy']:.2%}, chance {facts['chance']:.2%}, "
        f"mean largest probability {facts['teacher_mean_max_probability']:.3f}"
    )
