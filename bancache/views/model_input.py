"""What a model is given: images of a size, normalized by a mean and a std."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bancache.errors import UsageError


@dataclass(frozen=True)
class Normalization:
    """Mean and std of the pixels, one number per channel, in 0..255.

    Applied as ``(x - mean) * (1 / std)`` in float32. A product after a difference cannot be contracted to a fused
    multiply-add, as a sum after a product could, so all devices give the same bits.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise UsageError(
                f"mean {self.mean} and std {self.std} are not a normalization",
                hint="give one mean and one positive std for each channel",
            )

    @classmethod
    def of_fractions(cls, mean: Sequence[float], std: Sequence[float], channels: int) -> Normalization:
        """Return the normalization of ``channels`` for numbers in 0..1, as torchvision and timm write them.

        One number stands for all channels; of three numbers, a gray image takes the mean.
        """
        return cls(_per_channel(mean, channels), _per_channel(std, channels))

    @property
    def text(self) -> str:
        """Mean and std in 0..1, for messages."""
        mean, std = (", ".join(f"{value / 255:.3g}" for value in values) for values in (self.mean, self.std))
        return f"mean {mean} and std {std}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; Python's floats survive JSON exactly."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normalization:
        """Read what ``to_dict`` wrote."""
        return cls(tuple(values["mean"]), tuple(values["std"]))


@dataclass(frozen=True)
class ModelInput:
    """The images that a model was trained on.

    Attributes:
        size: Height and width in pixels, or None if unknown.
        normalization: Mean and std of the pixels.
        origin: Who says so, such as ``timm``; shown to the user.
        interpolation: How photographs were resized to ``size``, such as ``bicubic``; None if unknown.
    """

    size: tuple[int, int] | None
    normalization: Normalization
    origin: str
    interpolation: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, for a cache's manifest."""
        return {
            "size": None if self.size is None else list(self.size),
            "normalization": self.normalization.to_dict(),
            "origin": self.origin,
            "interpolation": self.interpolation,
        }


def _per_channel(fractions: Sequence[float], channels: int) -> tuple[float, ...]:
    numbers = tuple(255.0 * float(number) for number in fractions)
    if len(numbers) == 1:
        return numbers * channels
    return (sum(numbers) / len(numbers),) if channels == 1 else numbers
