"""ViewSpace: which views of a picture exist, and which of them a sample shows at a view index.

The address of a view is (sample, view index). A view space turns it into a *view id* and a *record*: a row of integers
that says everything about the view's pixels. Both are pure functions of seed and address by integer arithmetic, so every
process, device and language finds the same ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bancache.errors import UsageError
from bancache.system.wording import count
from bancache.views.record import Layout

PRESETS = {
    "imagenet": "rrc-flip",
    "tinyvit": "rrc-flip-rand-m9-n2-erase0.25",
    "deit": "rrc-flip-rand-m9-n2-erase0.25-mixup0.8-cutmix1.0",
}
PadMode = Literal["reflect", "zero"]
ENDLESS = 1 << 31  # the size of a view space whose views are drawn anew at every view index


@dataclass(frozen=True, eq=False)
class Sizes:
    """Heights and widths of all pictures of a data set in pixels, integers (N,)."""

    heights: NDArray[Any]
    widths: NDArray[Any]

    def __len__(self) -> int:
        return len(self.heights)

    def of(self, samples: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Return heights, widths and the square roots of the areas, in 256ths, rounded down; int64 (B,) each."""
        heights, widths = (side[samples].astype(np.int64) for side in (self.heights, self.widths))
        few = len(samples) < len(self) // 4  # of many pictures, whose roots take memory and time
        return heights, widths, _roots(heights * widths) if few else self._all_roots[samples]

    @cached_property
    def _all_roots(self) -> NDArray[np.int64]:
        return _roots(self.heights.astype(np.int64) * self.widths)


def _roots(areas: NDArray[np.int64]) -> NDArray[np.int64]:
    different, inverse = np.unique(areas, return_inverse=True)
    return np.array([isqrt(int(area) << 16) for area in different], np.int64)[inverse]


class ViewSpace(ABC):
    """The views of a picture. ``ViewSpace.parse`` makes one from a name such as ``crop4-flip`` or ``rrc-flip``.

    Attributes:
        seed: 64-bit seed of everything that is drawn.
        name: The name that ``parse`` reads; it does not contain the seed.
        size: How many views a sample has; ``ENDLESS`` if they are drawn anew at every view index.
        layout: The columns of a record.
    """

    kinds: ClassVar[dict[str, type[ViewSpace]]] = {}
    kind: ClassVar[str]
    seed: int

    def __init_subclass__(cls) -> None:
        """Enter a kind of view space under the id that caches store."""
        ViewSpace.kinds[cls.kind] = cls

    @staticmethod
    def parse(name: str, *, seed: int = 0) -> ViewSpace:
        """Read a name such as ``identity``, ``flip``, ``crop4-flip``, ``rrc-flip`` or ``deit``.

        Raises:
            UsageError: The name does not follow the grammar of views.
        """
        full = PRESETS.get(name, name)
        for kind in ViewSpace.kinds.values():
            if (space := kind.read(full, seed)) is not None:
                return space
        raise UsageError(
            f"no views are called '{name}'",
            hint="use identity, flip, crop4-flip or crop4-zero-flip, with any number of pixels; rrc-flip; "
            f"{', '.join(PRESETS)}; and any of -rand-m9-n2, -trivial, -color0.4, -erase0.25, -mixup0.8, -cutmix1.0 behind",
        )

    @staticmethod
    def from_dict(values: dict[str, Any]) -> ViewSpace:
        """Read what ``to_dict`` wrote.

        Raises:
            UsageError: The kind of view space is another one, or a setting is unknown.
        """
        kind = ViewSpace.kinds.get(values.get("id", ""))
        space = None if kind is None else kind.restore({key: values[key] for key in values if key != "id"})
        if space is None:
            raise UsageError(f"unknown view space: {values}", hint="upgrade bancache")
        return space

    @classmethod
    @abstractmethod
    def read(cls, name: str, seed: int) -> ViewSpace | None:
        """Return the space of a name, or None if it is of another kind."""

    @classmethod
    @abstractmethod
    def restore(cls, values: dict[str, Any]) -> ViewSpace | None:
        """Return the space of what ``to_dict`` wrote, without its id; None if a setting is unknown."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, with the id of the kind."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name that ``parse`` reads."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many views a sample has."""

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """The columns of a record."""

    @property
    @abstractmethod
    def evaluation(self) -> ViewSpace:
        """The one view of each picture on which a model is tested that was trained on these views."""

    @property
    def mode(self) -> PadMode:
        """What a box shows outside of the picture: ``reflect`` mirrors it without repeating its edge, ``zero`` adds 0."""
        return "reflect"

    @property
    def needs_one_size(self) -> bool:
        """Whether all pictures must have the same size."""
        return False

    @property
    def is_endless(self) -> bool:
        """Whether views are drawn anew at every view index, so that nobody can store all of them."""
        return self.size >= ENDLESS

    @abstractmethod
    def view_ids(self, samples: ArrayLike, view_indices: ArrayLike) -> NDArray[np.int64]:
        """Return the view ids of samples at view indices, int64; the two arguments broadcast together.

        Raises:
            UsageError: The space has no such view index.
        """

    @abstractmethod
    def records(
        self, samples: NDArray[np.int64], view_ids: NDArray[np.int64], sizes: Sizes
    ) -> NDArray[np.int32]:
        """Return the records of views, int32 (B, ``layout.width``), for samples and view ids int64 (B,)."""

    def require_view_indices(self, view_indices: NDArray[np.uint64]) -> None:
        """Raise UsageError if the space has not all of these view indices."""
        if view_indices.size and int(view_indices.max()) >= self.size:
            raise UsageError(
                f"there is no view {int(view_indices.max())} among {count(self.size, 'view')}",
                hint="view indices count from 0",
            )


def require_seed(seed: int) -> None:
    """Raise UsageError if a seed does not fit 64 bits."""
    if not 0 <= seed < 1 << 64:
        raise UsageError(f"a view seed is between 0 and 2^64 - 1, not {seed}")


def check_num_views(num_views: int, space: ViewSpace) -> None:
    """Raise ``UsageError`` for a number of views that a space does not have."""
    if not 1 <= num_views <= space.size:
        known = "any number of views" if space.is_endless else count(space.size, "view")
        raise UsageError(
            f"'{space.name}' has {known}, so --num-views cannot be {num_views}",
            hint="use 1 or more" if space.is_endless else f"use 1 to {space.size}, or all",
        )
