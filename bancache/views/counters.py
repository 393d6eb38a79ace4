"""Counters: views that are drawn anew at every view index, so that a sample has any number of them.

A name is a geometry and what happens to its pixels, in this order: ``rrc-flip-rand-m9-n2-erase0.25-mixup0.8-cutmix1.0``.
Every number of a view's record is drawn from words of philox4x32-10 at ``(sample, view index, lane)``. A view id is the
view index itself. What a name draws is frozen: caches on disk depend on it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bancache.errors import UsageError
from bancache.philox import philox, split_seed
from bancache.views.boxes import Integers, ResizedCrop, Words, below, erased_box
from bancache.views.center import Center
from bancache.views.lattice import Lattice
from bancache.views.mixing import Mixing, partners
from bancache.views.operations import Policy
from bancache.views.record import FLIP, HEIGHT, LEFT, TOP, WHOLE, WIDTH, Layout
from bancache.views.space import ENDLESS, PadMode, Sizes, ViewSpace, require_seed

_DOMAIN = 0x5AFE_0007
# The first of the lanes of each part; a part takes as many as it wants below the next.
_BOX, _ERASING, _MIXING, _FLIP, _SLOTS = 0, 8, 16, 24, 32
_NUMBER = r"(?:0|[1-9]\d*)(?:\.\d+)?"
_GRAMMAR = re.compile(
    rf"(?:(?P<rrc>rrc(?P<area>{_NUMBER})?(?:x(?P<aspect>{_NUMBER}))?(?P<flip>-flip)?)"
    r"|(?P<lattice>identity|flip|crop[1-9]\d{0,3}(?:-zero|-reflect)?(?:-flip)?))"
    rf"(?P<rest>(?:-(?P<policy>{Policy.GRAMMAR}))?(?:-erase(?P<erase>{_NUMBER}))?"
    rf"(?:-mixup(?P<mixup>{_NUMBER}))?(?:-cutmix(?P<cutmix>{_NUMBER}))?)",
    re.ASCII,
)


@dataclass(frozen=True)
class Counters(ViewSpace):
    """Any number of views, each drawn at its own view index.

    Attributes:
        full_name: Geometry, operations, erasing and mixing.
        seed: 64-bit seed of everything that is drawn.

    >>> Counters("rrc-flip").view_ids([0, 1], 7).tolist()
    [7, 7]
    """

    kind: ClassVar[str] = "counters-1"

    full_name: str
    seed: int = 0
    _parts: _Parts = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_seed(self.seed)
        object.__setattr__(self, "_parts", _parse(self.full_name))

    @classmethod
    def read(cls, name: str, seed: int) -> Counters | None:
        """Read a name; None if it is of another kind."""
        match = _GRAMMAR.fullmatch(name)
        is_lattice = match is not None and match["lattice"] and not match["rest"]
        return None if match is None or is_lattice else cls(name.replace("-reflect", ""), seed)

    @classmethod
    def restore(cls, values: dict[str, Any]) -> Counters | None:
        """Read what ``to_dict`` wrote, without the id."""
        return cls.read(values["name"], values["seed"]) if set(values) == {"name", "seed"} else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, with the id of the kind."""
        return {"id": self.kind, "name": self.name, "seed": self.seed}

    @property
    def name(self) -> str:
        """The name that ``parse`` reads."""
        return self.full_name

    @property
    def size(self) -> int:
        """More views than anybody stores."""
        return ENDLESS

    @property
    def layout(self) -> Layout:
        """The columns of a record."""
        return Layout(self._parts.policy.slots if self._parts.policy else 0, self._parts.mixing is not None)

    @property
    def mode(self) -> PadMode:
        """What lies outside of a picture whose crops are padded."""
        return self._parts.mode

    @property
    def needs_one_size(self) -> bool:
        """Whether crops are padded, which makes sense for pictures of one size."""
        return self._parts.crop is None

    @property
    def evaluation(self) -> ViewSpace:
        """How a model is tested that was trained on these views."""
        return Lattice() if self._parts.crop is None else Center()

    def view_ids(self, samples: ArrayLike, view_indices: ArrayLike) -> NDArray[np.int64]:
        """Return the view indices, int64, as often as there are samples; one for all of them is in memory once, read-only."""
        indices = np.asarray(view_indices, np.uint64)
        self.require_view_indices(indices)
        return np.broadcast_to(
            indices.astype(np.int64), np.broadcast_shapes(np.shape(samples), indices.shape)
        )

    def records(
        self, samples: NDArray[np.int64], view_ids: NDArray[np.int64], sizes: Sizes
    ) -> NDArray[np.int32]:
        """Return the records of views, int32 (B, ``layout.width``), for samples and view ids int64 (B,)."""
        layout, mixing = self.layout, self._parts.mixing
        records = np.zeros((len(samples), layout.width), np.int32)
        if mixing is None:
            records[:] = self._own(samples, view_ids, sizes)
            return records
        share, *cut = mixing.draw(self._words(samples, view_ids, range(_MIXING, _MIXING + 2), _MIXING))
        partner = partners(self.seed, samples, view_ids, len(sizes))
        # Together, since most of the time of a few views is numpy's for each operation.
        own = self._own(np.concatenate([samples, partner]), np.concatenate([view_ids, view_ids]), sizes)
        records[:, layout.share], records[:, layout.cut] = share, np.stack(cut, axis=1)
        records[:, layout.partner] = partner
        records[:, : layout.own], records[:, layout.partners] = own[: len(samples)], own[len(samples) :]
        return records

    def _own(self, samples: Integers, view_ids: Integers, sizes: Sizes) -> NDArray[np.int32]:
        parts, layout = self._parts, self.layout
        words = self._words(samples, view_ids, parts.lanes)
        own = np.zeros((len(samples), layout.own), np.int32)
        if parts.crop is not None:
            box = parts.crop.draw(words, samples, sizes)
            own[:, [TOP, LEFT, HEIGHT, WIDTH]] = np.stack(box, axis=1)
            if parts.flip:
                own[:, FLIP] = below(words(_FLIP)[0], 2)
        else:
            lattice = Lattice(parts.pad, parts.mode, parts.flip, self.seed)
            ids = lattice.view_ids(samples, view_ids % lattice.size)
            own[:, : FLIP + 1] = lattice.records(samples, ids, sizes)[:, : FLIP + 1]
        if parts.policy is not None:
            own[:, layout.operations] = parts.policy.draw(words)
        if parts.erased:
            erased = erased_box(lambda lane: words(_ERASING + lane), parts.erased)
            own[:, layout.erased.start : layout.fill + 1] = np.stack(erased, axis=1)
        return own

    def _words(self, samples: Integers, view_ids: Integers, lanes: Sequence[int], first: int = 0) -> Words:
        """Return the random words of views in some lanes; lane ``first`` is called 0."""
        low, high = (part.astype(np.uint64) for part in (samples & 0xFFFFFFFF, samples >> 32))
        third = (high << np.uint64(16)) | np.array(lanes, np.uint64)[:, None]
        words = philox(split_seed(self.seed), low, view_ids.astype(np.uint64), third, _DOMAIN)
        place = {lane - first: index for index, lane in enumerate(lanes)}
        return lambda lane: tuple(word[place[lane]] for word in words)


@dataclass(frozen=True)
class _Parts:
    """What a name says; ``crop`` is None for padded crops."""

    crop: ResizedCrop | None
    pad: int
    mode: PadMode
    flip: bool
    policy: Policy | None
    erased: int
    mixing: Mixing | None

    @property
    def lanes(self) -> list[int]:
        """The lanes of random words that the own part of a record wants."""
        boxes = [*range(_BOX, _ERASING - 2), _FLIP] if self.crop else []
        erased = range(_ERASING, _ERASING + 6) if self.erased else []
        operations = range(_SLOTS, _SLOTS + self.policy.slots) if self.policy else []
        return [*boxes, *erased, *operations]


@cache
def _parse(name: str) -> _Parts:
    match = _GRAMMAR.fullmatch(name)
    if match is None:
        raise UsageError(f"no views are called '{name}'")
    lattice = Lattice.read(match["lattice"], 0) if match["lattice"] else None
    crop = None
    if match["rrc"]:
        default = ResizedCrop()
        crop = ResizedCrop(
            _number(match["area"], default.least_area), _number(match["aspect"], default.aspect)
        )
        if not 0 < crop.least_area <= 1 or not 1 <= crop.aspect <= 16:
            raise UsageError(
                f"views '{name}': the least area is above 0 and up to 1, the aspect 1 to 16",
                hint="write rrc0.25 for crops of a quarter of the picture or more, rrc0.25x1.5 for aspects up to 1.5",
            )
    erased, mixup, cutmix = (_number(match[part], None) for part in ("erase", "mixup", "cutmix"))
    if erased is not None and not 1 <= erased * WHOLE <= WHOLE:
        raise UsageError(f"views '{name}': erase{match['erase']} is no probability", hint="write erase0.25")
    for part, alpha in (("mixup", mixup), ("cutmix", cutmix)):
        if alpha is not None and not Fraction(1, 100) <= alpha <= 100:
            raise UsageError(
                f"views '{name}': {part}{match[part]}: alpha is between 0.01 and 100", hint=f"write {part}0.8"
            )
    return _Parts(
        crop=crop,
        pad=lattice.pad if lattice else 0,
        mode=lattice.mode if lattice else "reflect",
        flip=lattice.flip if lattice else match["flip"] is not None,
        policy=Policy.parse(match["policy"]) if match["policy"] else None,
        erased=int(erased * WHOLE) if erased else 0,
        mixing=Mixing(mixup, cutmix) if mixup or cutmix else None,
    )


def _number(text: str | None, default: Any) -> Any:
    return default if text is None else Fraction(text)
