"""ViewSpace: every crop and flip an image can show, numbered; and which of them a sample shows in a view index.

A view of an image is a number in ``range(space.size)``, the *lattice* of all crop offsets and flips. A
cache has *views*: view index v of sample i holds view ``space.view_ids(i, v)``, where for each sample the views
are a random order of the whole lattice. One view index of all samples is one epoch's worth of independent random
views, and as many views as the lattice is large hold every view there is exactly once.

Address to view is integer arithmetic with philox4x32-10 and O(1) for each entry, so any process, device or
language finds the same view. The numbering and the order are frozen: caches on disk depend on them.
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

PadMode = Literal["reflect", "zero"]

DOMAIN = 0x5AFE_0001  # keeps these words apart from other uses of the same seed
# Four rounds leave the joint frequencies of two views measurably uneven on small lattices, eight do not; twelve,
# on at least 2 x 3 bits, are a margin for what can never be changed (docs/log.md, benchmarks/view_order.py).
ROUNDS = 12
_HALF_BITS = 3
_PART = 1 << 14  # views at a time: their words stay in a core's cache, and a call costs less than its work
_GRAMMAR = re.compile(r"identity|flip|crop(?P<pad>[1-9]\d{0,3})(?P<mode>-zero|-reflect)?(-flip)?")


@dataclass(frozen=True)
class ViewSpace:
    """All crops of an image padded by ``pad`` pixels on each side, with or without horizontal flips.

    Attributes:
        pad: Pixels added on each side; a crop has the image's own size.
        mode: What the added pixels are: the image reflected (its edge not repeated), or 0.
        flip: Whether each crop also exists mirrored left to right.
        seed: 64-bit seed of the order in which each sample shows its views.

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
        """Read ``identity``, ``flip``, ``crop4``, ``crop4-flip``, ``crop4-zero-flip`` and their like.

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
        """The name that ``parse`` reads back; the seed is not part of it."""
        crop = f"crop{self.pad}" + ("-zero" if self.mode == "zero" else "") if self.pad else ""
        return "-".join(part for part in (crop, "flip" if self.flip else "") if part) or "identity"

    @property
    def size(self) -> int:
        """How many different views an image has."""
        return (2 * self.pad + 1) ** 2 * (2 if self.flip else 1)

    @property
    def identity(self) -> int:
        """The number of the view that is the image itself."""
        return self.pad * (2 * self.pad + 1) + self.pad

    @property
    def half_bits(self) -> int:
        """How many bits each half of a view's number has in the cipher that orders a sample's views."""
        return max(_HALF_BITS, ((self.size - 1).bit_length() + 1) // 2)

    def params(self, ids: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return ``(dy, dx, flip)`` of view numbers: row and column of the crop's corner in the padded image.

        The crop is cut first and mirrored second. ``id = (flip · span + dy) · span + dx``, span = 2·pad + 1.
        """
        number = np.asarray(ids, dtype=np.int64)
        span = 2 * self.pad + 1
        return number // span % span, number % span, number // (span * span)

    def view_ids(self, samples: ArrayLike, view_indices: ArrayLike) -> NDArray[np.int64]:
        """Return the view that each sample shows in each view index; the two arguments broadcast together.

        For each sample, a bijection of ``range(size)``: the view index is rotated by one philox word of the sample,
        which makes each view index's view exactly uniform, then sent through a Feistel network whose round function
        is one word of philox4x32-10 at ``(sample, half, round)``, along its cycle until it is back inside the
        lattice (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).

        Args:
            samples: Positions in the data set, from 0 on.
            view_indices: In ``range(size)``.
        """
        sample, view_index = np.broadcast_arrays(
            np.asarray(samples, dtype=np.uint64), np.asarray(view_indices, dtype=np.uint64)
        )
        if view_index.size:
            self.require_view_index(int(view_index.max()))
        who, size = sample.reshape(-1), np.uint64(self.size)
        view = np.empty(who.shape, np.uint64)
        for part in _parts(who.size):
            words = self._words(who[part])
            rotation = (words.at(np.full(who[part].shape, 0xFFFFFFFF, np.uint64)) * size) >> np.uint64(32)
            view[part] = (view_index.reshape(-1)[part] + rotation) % size
            if self.size > 2:  # of one or two views the rotation alone is a uniformly random order
                view[part] = self._encipher(words, view[part])
        outside = np.flatnonzero(view >= size)
        while outside.size:
            for part in _parts(outside.size):
                some = outside[part]
                view[some] = self._encipher(self._words(who[some]), view[some])
            outside = outside[view[outside] >= size]
        return view.reshape(view_index.shape).view(np.int64)

    def require_view_index(self, view_index: int) -> None:
        """Refuse a view index that this space does not have."""
        if not 0 <= view_index < self.size:
            raise UsageError(f"there is no view {view_index} among {self.size} views")

    def _encipher(self, words: Words, value: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """One pass of the Feistel network over numbers of ``2 · bits`` bits."""
        bits, mask = np.uint64(self.half_bits), np.uint64((1 << self.half_bits) - 1)
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
        """Return the space as JSON values, with the id of its numbering."""
        return {"id": "lattice-1", **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ViewSpace:
        """Read what ``to_dict`` wrote.

        Raises:
            UsageError: Another numbering, or settings that this one does not have.
        """
        if values.get("id") != "lattice-1" or set(values) != {"id", "pad", "mode", "flip", "seed"}:
            raise UsageError(f"views of an unknown kind: {values}", hint="upgrade bancache")
        return cls(values["pad"], values["mode"], values["flip"], values["seed"])


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _PART) for start in range(0, count, _PART))
