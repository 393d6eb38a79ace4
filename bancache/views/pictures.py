"""Pictures: the pixels of a data set in one run of bytes; and Shapes: what is known of pictures without their pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bancache.errors import UsageError
from bancache.system.ragged import ONE_SIZE, Images, RaggedImages, as_ragged
from bancache.system.stored import AnyImages
from bancache.views.space import Sizes, ViewSpace

# How many times as long as its view a box may be: the weights of resampling are not negative up to there.
LONGEST = 255


@dataclass(frozen=True, eq=False)
class Shapes:
    """The sizes of the pictures of a data set, wherever their pixels are.

    Attributes:
        sizes: Heights and widths.
        channels: 1 for gray, 3 for color.
        size: Height and width if all pictures have the same, else None.
        span: The sizes of the smallest and the largest picture, as text.
    """

    sizes: Sizes
    channels: int
    size: tuple[int, int] | None
    span: str

    def __len__(self) -> int:
        return len(self.sizes)

    def require(self, space: ViewSpace, size: tuple[int, int] | None) -> tuple[int, int]:
        """Return height and width at which views are shown: ``size``, else that of the pictures.

        Raises:
            UsageError: The views need pictures of one size, nothing says at which size they are shown, they would be
                distorted, or are too small for these pictures.
        """
        shown = size or self.size
        if space.needs_one_size and self.size is None:
            raise UsageError(
                f"views '{space.name}' need pictures of one size, these are {self.span}", hint=ONE_SIZE
            )
        if shown is None:
            raise UsageError(
                f"nothing says at which size these pictures are shown, they are {self.span}",
                hint="add --size 64",
            )
        if (
            space.needs_one_size
            and self.size
            and shown != self.size
            and self.size[0] * shown[1] != self.size[1] * shown[0]
        ):
            raise UsageError(
                f"views '{space.name}' would distort pictures of {self.size[1]}x{self.size[0]} pixels "
                f"to {shown[1]}x{shown[0]}",
                hint="use --views rrc-flip, or resize the pictures: --image-size 64",
            )
        require_reach(int(self.sizes.heights.max(initial=1)), int(self.sizes.widths.max(initial=1)), shown)
        return shown


@dataclass(frozen=True, eq=False)
class Pictures(Shapes):
    """Pixels without padding, of one size or of many.

    Attributes:
        flat: The pixels of all pictures, uint8, each (H, W, C) in C order.
        offsets: Where each picture begins, int64 (N,).
    """

    flat: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, images: Images) -> Pictures:
        """Return the pictures of an array (N, H, W, C), or of many sizes, without a copy."""
        ragged, shapes = as_ragged(images), shapes_of(images)
        return cls(shapes.sizes, shapes.channels, shapes.size, shapes.span, ragged.flat, ragged.offsets)


def require_reach(height: int, width: int, shown: tuple[int, int]) -> None:
    """Raise UsageError if pictures up to this height and width are too large to be resampled exactly to their views' size."""
    if height > LONGEST * shown[0] or width > LONGEST * shown[1]:
        side = height if height > LONGEST * shown[0] else width
        raise UsageError(
            f"a picture has a side of {side} pixels, more than {LONGEST} times as long as its view, {shown[1]}x{shown[0]}",
            hint=f"--size {-(-max(height, width) // LONGEST)} or more (of a teacher: --teacher-size)",
        )


def shapes_of(images: AnyImages) -> Shapes:
    """Return the sizes of pictures, in memory or not."""
    if isinstance(images, np.ndarray):
        size, ragged = (images.shape[1], images.shape[2]), as_ragged(images)
        return _shapes(ragged, size)
    if isinstance(images, RaggedImages):
        return _shapes(images, None)
    sizes = Sizes(images.heights, images.widths)  # not copied: there may be millions
    return Shapes(sizes, images.channels, images.size, images.span)


def _shapes(images: RaggedImages, size: tuple[int, int] | None) -> Shapes:
    sizes = Sizes(images.heights.astype(np.int64), images.widths.astype(np.int64))
    return Shapes(sizes, images.channels, size, images.span)
