"""Lattice: every crop and flip of an image, numbered, and the order in which each sample shows them.

A view id is a number in ``range(space.size)``: one crop offset and flip of the lattice of all of them. A cache stores
``num_views`` views per sample: at view index v, sample i has the view id ``space.view_ids(i, v)``. For each sample, the
view indices are a random order of the whole lattice. So one view of every sample is one epoch of independent random
views, and a cache with ``space.size`` views holds every view exactly once.

The numbering and the order are frozen: caches on disk depend on them.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bancache.errors import UsageError
from bancache.views.record import FLIP, HEIGHT, LEFT, TOP, WIDTH, Layout
from bancache.views.shuffle import shuffled
from bancache.views.space import PadMode, Sizes, ViewSpace, require_seed

DOMAIN = 0x5AFE_0001  # separates these random words from other uses of the same seed
_GRAMMAR = re.compile(r"identity|flip|crop(?P<pad>[1-9]\d{0,3})(?P<mode>-zero|-reflect)?(-flip)?")


@dataclass(frozen=True)
class Lattice(ViewSpace):
    """All crops of an image padded by ``pad`` pixels on each side, with or without horizontal flips.

    Attributes:
        pad: Pixels added on each side; a crop has the image's own size.
        mode: The added pixels: ``reflect`` mirrors the image without repeating its edge, ``zero`` adds 0.
        flip: Whether each crop also exists mirrored left to right.
        seed: 64-bit seed of each sample's order of views.

    >>> Lattice(pad=4, flip=True).size
    162
    >>> Lattice(pad=4, flip=True).view_ids([0, 1, 2], 0).tolist()
    [41, 33, 125]
    """

    kind: ClassVar[str] = "lattice-1"

    pad: int = 0
    mode: PadMode = "reflect"
    flip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.pad <= 4096 or self.mode not in ("reflect", "zero"):
            raise UsageError(f"no such views: pad {self.pad}, mode '{self.mode}'")
        require_seed(self.seed)

    @classmethod
    def read(cls, name: str, seed: int) -> Lattice | None:
        """Read a name such as ``identity``, ``flip``, ``crop4``, ``crop4-flip`` or ``crop4-zero-flip``."""
        match = _GRAMMAR.fullmatch(name)
        if match is None:
            return None
        mode: PadMode = "zero" if match["mode"] == "-zero" else "reflect"
        return cls(pad=int(match["pad"] or 0), mode=mode, flip=name.endswith("flip"), seed=seed)

    @classmethod
    def restore(cls, values: dict[str, Any]) -> Lattice | None:
        """Read what ``to_dict`` wrote, without the id."""
        return cls(**values) if set(values) == {"pad", "mode", "flip", "seed"} else None

    @property
    def name(self) -> str:
        """The name that ``parse`` reads; it does not contain the seed."""
        crop = f"crop{self.pad}" + ("-zero" if self.mode == "zero" else "") if self.pad else ""
        return "-".join(part for part in (crop, "flip" if self.flip else "") if part) or "identity"

    @property
    def size(self) -> int:
        """How many different views an image has."""
        return (2 * self.pad + 1) ** 2 * (2 if self.flip else 1)

    @property
    def layout(self) -> Layout:
        """The columns of a record: a box and a flip alone."""
        return Layout()

    @property
    def evaluation(self) -> Lattice:
        """The image itself."""
        return Lattice()

    @property
    def needs_one_size(self) -> bool:
        """Crops of one size need images of one size."""
        return True

    @property
    def identity(self) -> int:
        """The id of the view that is the image itself."""
        return self.pad * (2 * self.pad + 1) + self.pad

    def params(self, view_ids: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return ``(dy, dx, flip)`` of view ids: row and column of the crop's corner in the padded image.

        The crop is cut first and mirrored second. ``view_id = (flip · span + dy) · span + dx``, span = 2·pad + 1.
        """
        number = np.asarray(view_ids, dtype=np.int64)
        span = 2 * self.pad + 1
        return number // span % span, number % span, number // (span * span)

    def view_ids(self, samples: ArrayLike, view_indices: ArrayLike) -> NDArray[np.int64]:
        """Return the view ids of samples at view indices, int64; the two arguments broadcast together.

        For each sample this is a bijection of ``range(size)``.

        Args:
            samples: Positions in the data set, from 0 on.
            view_indices: In ``range(size)``.

        Raises:
            UsageError: The space has no such view index.
        """
        sample, view_index = np.broadcast_arrays(
            np.asarray(samples, dtype=np.uint64), np.asarray(view_indices, dtype=np.uint64)
        )
        self.require_view_indices(view_index)
        flat = sample.reshape(-1), view_index.reshape(-1)
        return shuffled(self.seed, *flat, self.size, domain=DOMAIN).reshape(view_index.shape)

    def records(
        self, samples: NDArray[np.int64], view_ids: NDArray[np.int64], sizes: Sizes
    ) -> NDArray[np.int32]:
        """Return the records of views, int32 (B, ``layout.width``); a box may begin outside of the picture."""
        records = np.zeros((len(samples), self.layout.width), np.int32)
        dy, dx, records[:, FLIP] = self.params(view_ids)
        records[:, TOP], records[:, LEFT] = dy - self.pad, dx - self.pad
        records[:, HEIGHT], records[:, WIDTH] = sizes.heights[samples], sizes.widths[samples]
        return records

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, with the id of the numbering."""
        return {"id": self.kind, **asdict(self)}
