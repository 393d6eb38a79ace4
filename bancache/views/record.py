"""The record of a view: a row of integers from which its pixels are computed, at any size and on any device.

The columns of a view's own part are its box on the source picture in pixels (top, left, height, width), whether it is
mirrored, a number and a magnitude for each operation, and the erased box with its color. Views that are mixed have six
columns more, and the own part of the partner's view.

Boxes on the view are in 2^16ths of its sides, so that views of different sizes show the same piece of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

WHOLE = 1 << 16  # a whole side of a view
LAMBDA = 256  # a share of 1

# Columns of the own part, before the operations.
TOP, LEFT, HEIGHT, WIDTH, FLIP = range(5)
_OPERATIONS = 5
_ERASED = 5  # top, left, height, width, color
_MIXED = 6  # share, then top, left, height and width of the cut, then the partner's sample


@dataclass(frozen=True)
class Layout:
    """Where the columns of a record lie.

    Attributes:
        slots: Number of operations.
        mixed: Whether views are mixed with a partner's view.
    """

    slots: int = 0
    mixed: bool = False

    @property
    def operations(self) -> slice:
        """A number and a magnitude for each slot; operation 0 changes nothing."""
        return slice(_OPERATIONS, _OPERATIONS + 2 * self.slots)

    @property
    def erased(self) -> slice:
        """Top, left, height and width in 2^16ths of the view; a height of 0 erases nothing."""
        return slice(self.operations.stop, self.operations.stop + 4)

    @property
    def fill(self) -> int:
        """The color of the erased box: red, green and blue in bits 0, 8 and 16."""
        return int(self.erased.stop)

    @property
    def own(self) -> int:
        """The number of columns of a view's own part."""
        return _OPERATIONS + 2 * self.slots + _ERASED

    @property
    def share(self) -> int:
        """The share of the view itself in 256ths; the rest is the partner's. With a cut, the share before rounding to pixels."""
        return self.own

    @property
    def cut(self) -> slice:
        """The box that shows the partner's view, in 2^16ths; with a height of 0 the two views are blended."""
        return slice(self.own + 1, self.own + 5)

    @property
    def partner(self) -> int:
        """The partner's sample."""
        return self.own + 5

    @property
    def partners(self) -> slice:
        """The own part of the partner's view."""
        return slice(self.own + _MIXED, 2 * self.own + _MIXED)

    @property
    def width(self) -> int:
        """The number of columns."""
        return 2 * self.own + _MIXED if self.mixed else self.own
