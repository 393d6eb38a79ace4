"""Center: the one view of a photograph on which a model is tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bancache.views.record import HEIGHT, LEFT, TOP, WIDTH, Layout
from bancache.views.space import Sizes, ViewSpace


@dataclass(frozen=True)
class Center(ViewSpace):
    """One view: the largest centered square of 7/8 of a picture's shorter side, as 224 of 256 pixels, for evaluation."""

    kind: ClassVar[str] = "center-1"

    seed: int = 0

    @classmethod
    def read(cls, name: str, seed: int) -> Center | None:
        """Read the name ``center``."""
        return cls(seed) if name == "center" else None

    @classmethod
    def restore(cls, values: dict[str, Any]) -> Center | None:
        """Read what ``to_dict`` wrote, without the id."""
        return cls(**values) if set(values) == {"seed"} else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, with the id of the kind."""
        return {"id": self.kind, "seed": self.seed}

    @property
    def name(self) -> str:
        """The name that ``parse`` reads."""
        return "center"

    @property
    def size(self) -> int:
        """One view."""
        return 1

    @property
    def layout(self) -> Layout:
        """A box alone."""
        return Layout()

    @property
    def evaluation(self) -> ViewSpace:
        """The same view."""
        return self

    def view_ids(self, samples: ArrayLike, view_indices: ArrayLike) -> NDArray[np.int64]:
        """Return zeros."""
        samples, indices = np.broadcast_arrays(
            np.asarray(samples, np.uint64), np.asarray(view_indices, np.uint64)
        )
        self.require_view_indices(indices)
        return np.zeros(indices.shape, np.int64)

    def records(
        self, samples: NDArray[np.int64], view_ids: NDArray[np.int64], sizes: Sizes
    ) -> NDArray[np.int32]:
        """Return the records of views, int32 (B, ``layout.width``)."""
        heights, widths = sizes.heights[samples], sizes.widths[samples]
        side = np.maximum(1, (7 * np.minimum(heights, widths) + 4) // 8)
        records = np.zeros((len(samples), self.layout.width), np.int32)
        records[:, TOP], records[:, LEFT] = (heights - side) // 2, (widths - side) // 2
        records[:, HEIGHT] = records[:, WIDTH] = side
        return records
