"""ViewSpace: every crop and flip of an image, numbered, and the order in which each sample shows them.

A *view id* is a number in ``range(space.size)``: one crop offset and flip of the lattice of all of them. A cache stores
``num_views`` views per sample: at view index v, sample i has the view id ``space.view_ids(i, v)``. For each sample, the
view indices are a random order of the whole lattice. So one view of every sample is one epoch of independent random
views, and a cache with ``space.size`` views holds every view exactly once.

The view id is computed from sample and view index by integer arithmetic with philox4x32-10, in O(1), so every process,
device and language finds the same one. The numbering and the order are frozen: caches on disk depend on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bancache.errors import UsageError
from bancache.philox import Words, split_seed
from bancache.system.wording import count

PadMode = Literal["reflect", "zero"]

DOMAIN = 0x5AFE_0001  # separates these random words from other uses of the same seed
# With four rounds the joint frequencies of two views are measurably uneven on small lattices, with eight they are not.
# Twelve, on at least 2 x 3 bits, leave a margin, since the order can never change (docs/log.md, benchmarks/view_order.py).
ROUNDS = 12
_HALF_BITS = 3
_PART = 1 << 14  # views at a time: their random words stay in a core's cache
_GRAMMAR = re.compile(r"identity|flip|crop(?P<pad>[1-9]\d{0,3})(?P<mode>-zero|-reflect)?(-flip)?")


@dataclass(frozen=True)
class ViewSpace:
    """All crops of an image padded by ``pad`` pixels on each side, with or without horizontal flips.

    Attributes:
        pad: Pixels added on each side; a crop has the image's own size.
        mode: The added pixels: ``reflect`` mirrors the image without repeating its edge, ``zero`` adds 0.
        flip: Whether each crop also exists mirrored left to right.
        seed: 64-bit seed of each sample's order of views.

    >>> ViewSpace.parse("crop4-flip").size
    162
    >>> ViewSpace(pad=4, flip=True).view_ids([0, 1, 2], 0).tolist()
    [41, 33, 125]
    """

    pad: int = 0
    mode: PadMode = "reflect"
    flip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.pad <= 4096 or self.mode not in ("reflect", "zero"):
            raise UsageError(f"no such views: pad {self.pad}, mode '{self.mode}'")
        if not 0 <= self.seed < 1 << 64:
            raise UsageError(f"a view seed is between 0 and 2^64 - 1, not {self.seed}")

    @classmethod
    def parse(cls, name: str, *, seed: int = 0) -> ViewSpace:
        """Read a name such as ``identity``, ``flip``, ``crop4``, ``crop4-flip`` or ``crop4-zero-flip``.

        Raises:
            UsageError: The name does not follow that grammar.
        """
        match = _GRAMMAR.fullmatch(name)
        if match is None:
            raise UsageError(
                f"no views are called '{name}'",
                hint="use identity, flip, crop4, crop4-flip or crop4-zero-flip, with any number of pixels",
            )
        mode: PadMode = "zero" if match["mode"] == "-zero" else "reflect"
        return cls(pad=int(match["pad"] or 0), mode=mode, flip=name.endswith("flip"), seed=seed)

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

        For each sample this is a bijection of ``range(size)``. One philox word of the sample rotates the view index,
        which makes the view id exactly uniform. A Feistel network follows, whose round function is one word of
        philox4x32-10 at ``(sample, half, round)``. It is repeated until the number is inside the lattice
        (cycle walking: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).

        Args:
            samples: Positions in the data set, from 0 on.
            view_indices: In ``range(size)``.

        Raises:
            UsageError: The space has no such view index.
        """
        sample, view_index = np.broadcast_arrays(
            np.asarray(samples, dtype=np.uint64), np.asarray(view_indices, dtype=np.uint64)
        )
        if view_index.size and int(view_index.max()) >= self.size:
            raise UsageError(
                f"there is no view {int(view_index.max())} among {count(self.size, 'view')}",
                hint="view indices count from 0",
            )
        flat, size = sample.reshape(-1), np.uint64(self.size)
        view = np.empty(flat.shape, np.uint64)
        for part in _parts(flat.size):
            words = self._words(flat[part])
            rotation = (words.at(np.full(flat[part].shape, 0xFFFFFFFF, np.uint64)) * size) >> np.uint64(32)
            view[part] = (view_index.reshape(-1)[part] + rotation) % size
            if self.size > 2:  # for one or two views the rotation alone is a uniformly random order
                view[part] = self._encipher(words, view[part])
        outside = np.flatnonzero(view >= size)
        while outside.size:
            for part in _parts(outside.size):
                some = outside[part]
                view[some] = self._encipher(self._words(flat[some]), view[some])
            outside = outside[view[outside] >= size]
        return view.reshape(view_index.shape).view(np.int64)

    def _encipher(self, words: Words, value: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Apply the Feistel network once to numbers of ``2 · half`` bits."""
        half = max(_HALF_BITS, ((self.size - 1).bit_length() + 1) // 2)
        bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
        left, right = value >> bits, value & mask
        for step in range(ROUNDS):
            word = words.at(right | np.uint64(step << 24))
            word &= mask
            word ^= left
            left, right = right, word
        return (left << bits) | right

    def _words(self, sample: NDArray[np.uint64]) -> Words:
        low, high = sample & np.uint64(0xFFFFFFFF), sample >> np.uint64(32)
        return Words(split_seed(self.seed), low, high, DOMAIN)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, with the id of the numbering."""
        return {"id": "lattice-1", **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ViewSpace:
        """Read what ``to_dict`` wrote.

        Raises:
            UsageError: The numbering is another one, or a setting is unknown.
        """
        if values.get("id") != "lattice-1" or set(values) != {"id", "pad", "mode", "flip", "seed"}:
            raise UsageError(f"unknown view space: {values}", hint="upgrade bancache")
        return cls(values["pad"], values["mode"], values["flip"], values["seed"])


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _PART) for start in range(0, count, _PART))
