"""What a comparison stands on: chance, how far the baseline is from it, and whether the baseline was still learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bancache.report.caches import cache_of, dumps_of
from bancache.report.families import BASELINE, FIRST, Family, mean_of, mean_test
from bancache.report.results import Record
from bancache.report.training import column_lines

# Of chance's error: a model that keeps more of it has learned too little to teach or to be compared with.
BARELY = 0.8
# Of the loss's whole fall: what the last tenth of the epochs may bring; a straight line brings 0.1.
FALLING = 0.05


class Basis(NamedTuple):
    """The baseline of a model and data; errors are fractions of one, None where the records do not say.

    ``chance`` is the error of always naming the most frequent class. ``end`` says how the training loss ended:
    the last tenth of the epochs (their number), the loss before and after them, and their share of its whole fall.
    """

    model: str
    data: str
    error: float | None
    chance: float | None
    end: tuple[int, float, float, float] | None

    @property
    def barely(self) -> bool:
        """Whether the baseline is hardly better than chance."""
        return self.error is not None and self.chance is not None and barely_beats(self.error, self.chance)

    @property
    def falling(self) -> bool:
        """Whether the baseline's training loss was still falling when its training ended."""
        return self.end is not None and self.end[3] > FALLING


def barely_beats(error: float, chance: float) -> bool:
    """Whether a model's error is hardly smaller than that of always naming the most frequent class."""
    return error > BARELY * chance


def basis_of(family: Family, records: Sequence[Record]) -> Basis:
    """Return what the comparisons of a family stand on."""
    first = next((family.columns[column] for column in FIRST if column in family.columns), ())
    error = mean_test(first, "error") if first else None
    return Basis(family.key.model, family.key.data, error, _chance(family, records), _end(family))


def _chance(family: Family, records: Sequence[Record]) -> float | None:
    """Return the error of the most frequent class; of older lines that of the cache's images, or of equal classes."""
    results = [result for column in family.columns.values() for result in column]
    right = mean_test(results, "chance")
    if right is None:
        caches = {cache_of(result.record) for result in results}
        dumps = [dump for dump in dumps_of(records) if dump.get("digest") in caches]
        classes = mean_of(dumps, "classes")
        right = mean_of(dumps, "chance") or (1 / classes if classes else None)
    return None if right is None else 1 - right


def _end(family: Family) -> tuple[int, float, float, float] | None:
    lines = [line.mean for line in column_lines(family, "loss") if line.label == BASELINE]
    losses = [loss for line in lines for _, loss in line]
    if len(losses) < 2:
        return None
    tenth = max(1, round(len(losses) / 10))
    before, last, whole = losses[-1 - tenth], losses[-1], max(losses) - losses[-1]
    return tenth, before, last, (before - last) / whole if whole > 0 else 0.0
