"""root-r: a distribution in one byte per class, without scales, most precise for the large classes.

    q_i = rint((L − 1) · (p_i / p_max)^(1/r)),     p_i ∝ q_i^r

KL(p ‖ p̂) ≈ ½ Σ p_i δ_i², with δ_i the error of logit i, so a class deserves precision in proportion to its
probability. With an entropy coder the best r is 2. At a fixed 256 levels it is 4 to 5 for temperature 1,
about 8 for temperature 2 and 12 for temperature 4. The largest class is always L − 1, so no written row is
all zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bancache.encodings.fields import FieldSpec
from bancache.errors import UsageError

# A class below half a step is stored as 0 and decoded as a quarter step, the mean of the values that round to 0.
# The decoded distribution then has no zeros, whose logarithm would make a KL divergence infinite.
ZERO_STEP = 0.25
_FLOAT64_BITS = 53
_LARGEST_EXACT = 4  # for 256 levels; larger powers of few levels are not tried


@dataclass(frozen=True)
class Root:
    """The root-r code with ``levels`` levels.

    Attributes:
        classes: C.
        root: r; at temperature T the decoded exponent is r / T.
        levels: L, from 4 to 32,768; up to 256 levels are stored as uint8, more as int16.
    """

    classes: int
    root: int
    levels: int = 256

    def __post_init__(self) -> None:
        if self.classes < 1 or not 1 <= self.root <= 32 or not 4 <= self.levels <= 32768:
            raise UsageError(
                f"no code with root {self.root}, {self.levels} levels and {self.classes} classes",
                hint="use a root of 1 to 32 with 4 to 32768 levels",
            )

    @property
    def name(self) -> str:
        """``root4``, or with the levels where 256 is not the default, ``root2-1024``."""
        usual = self.levels == 256 and self.root > 2
        return f"root{self.root}" if usual else f"root{self.root}-{self.levels}"

    @property
    def max_temperature(self) -> float:
        """1 up to r = 7, then 4, as measured in docs/encodings.md."""
        return 4.0 if self.root >= 8 else 1.0

    def fields(self) -> tuple[FieldSpec, ...]:
        """Return ``q``, one integer per class."""
        return (FieldSpec("q", "uint8" if self.levels <= 256 else "int16", (self.classes,), ("class",)),)

    def encode(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``q`` (B, C) for float32 logits (B, C)."""
        relative = logits - logits.amax(dim=1, keepdim=True)
        steps = torch.exp(relative / self.root).mul_(self.levels - 1).round_()
        return {"q": steps.to(torch.uint8 if self.levels <= 256 else torch.int16)}

    def probabilities(self, fields: Mapping[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """Return q^(r/T) normalized, float32 (B, C), without an exponential or logarithm for whole r/T."""
        steps = fields["q"].to(torch.float32).clamp_(min=ZERO_STEP)
        power = self.exact_power(temperature)
        if power is not None:
            weights = _power(steps, power)
            return weights.mul_(weights.sum(dim=1, keepdim=True, dtype=torch.float64).reciprocal_().float())
        # Relative to the largest step, powers stay inside float32 for every r and C.
        weights = _power(steps.mul_(1.0 / (self.levels - 1)), self.root / temperature)
        return weights.div_(weights.sum(dim=1, keepdim=True))

    def exact_power(self, temperature: float) -> int | None:
        """Return r / T if it is whole and float64 holds a row's sum of such powers exactly; else None.

        Steps are multiples of 1/4, so their e-th powers, rounded to float32 or not, and sums of these are multiples of
        4^-e. With 256 levels the sums are exact for e up to 4 and up to 8,000 classes. An exact sum does not depend on
        its order, the library or the device.

        >>> Root(100, 4).exact_power(1.0), Root(100, 8).exact_power(2.0), Root(100, 8).exact_power(4.0)
        (4, 4, 2)
        >>> print(Root(100, 8).exact_power(1.0), Root(100, 4).exact_power(3.0), Root(21_843, 4).exact_power(1.0))
        None None None
        """
        power = self.root / temperature
        if power != int(power) or not 1 <= power <= _LARGEST_EXACT:
            return None
        steps = int((self.levels - 1) / ZERO_STEP)
        return int(power) if self.classes * steps ** int(power) <= 2**_FLOAT64_BITS else None

    def to_config(self) -> dict[str, Any]:
        """Return the name, the id of the format, root and levels."""
        return {"name": self.name, "id": "root-1", "root": self.root, "levels": self.levels}


def _power(base: torch.Tensor, exponent: float) -> torch.Tensor:
    """Raise in place; whole exponents by repeated squaring, several times faster than pow."""
    if exponent != int(exponent) or exponent < 1:
        return base.pow_(exponent)
    remaining, result = int(exponent), None
    while True:
        if remaining & 1:
            result = base.clone() if result is None else result.mul_(base)
        remaining >>= 1
        if not remaining:
            return result if result is not None else base
        base = base.mul_(base)
