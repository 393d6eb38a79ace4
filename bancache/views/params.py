"""What a view's record says, in units that people use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.views.operations import (
    AUTOCONTRAST,
    BRIGHTNESS,
    COLOR,
    CONTRAST,
    EQUALIZE,
    IDENTITY,
    INVERT,
    ONE,
    OPERATIONS,
    ROTATE,
    SHARPNESS,
    SHEAR_X,
    SHEAR_Y,
    TRANSLATE_X,
    TRANSLATE_Y,
)
from bancache.views.record import FLIP, HEIGHT, LAMBDA, TOP, WHOLE, WIDTH, Layout

_WITHOUT_MAGNITUDE = (AUTOCONTRAST, EQUALIZE, INVERT)
# How many units of a magnitude are a degree, a factor of 1, or a whole side; bits and pixel values are as they are.
_UNITS = {
    ROTATE: 2,
    **dict.fromkeys((COLOR, CONTRAST, BRIGHTNESS, SHARPNESS), ONE),
    **dict.fromkeys((SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y), WHOLE),
}


def params_of(record: NDArray[np.int32], layout: Layout, channels: int) -> dict[str, Any]:
    """Return the record of a view, int32 (columns,), as JSON values. All numbers are exact.

    ``crop`` is top, left, height and width in pixels of the source picture; padded crops begin above or left of it,
    at negative numbers. ``flip``: whether the crop is mirrored. ``ops``: pairs of a name and a magnitude, in degrees
    counterclockwise, factors, shares of a side, bits or pixel values; None where an operation has none. ``erase``: None,
    or a ``box`` in 0..1 of the view's sides and its ``color`` in 0..255 for each channel. ``lam``: the share of the
    view's own label. ``cutmix``: None, or the box in 0..1 of the view's sides that shows the partner. ``partner``: the
    sample whose view at the same view index is mixed in, and ``partner_params``: its crop, flip, ops and erase; or None.
    """
    own = _own(record[: layout.own], layout, channels)
    if not layout.mixed:
        return {**own, "partner": None, "lam": 1.0, "cutmix": None, "partner_params": None}
    cut = _box(record[layout.cut])
    return {
        **own,
        "partner": int(record[layout.partner]),
        "lam": 1 - cut[2] * cut[3] if cut else int(record[layout.share]) / LAMBDA,
        "cutmix": cut,
        "partner_params": _own(record[layout.partners], layout, channels),
    }


def params_text(params: dict[str, Any]) -> str:
    """Return what ``params_of`` returned as a line, without what is as usual.

    >>> params = {"crop": [-1, 2, 32, 32], "flip": True, "ops": [["rotate", 4.5]], "erase": None, "partner": None}
    >>> params_text(params)
    'crop -1,2 32x32, mirrored, rotate 4.5'
    >>> params_text({**params, "partner": 7, "cutmix": None, "lam": 1.0})  # nothing of it is seen
    'crop -1,2 32x32, mirrored, rotate 4.5'
    >>> params_text({**params, "partner": 7, "cutmix": None, "lam": 0.25})
    'crop -1,2 32x32, mirrored, rotate 4.5, mixup with 75% of 7'
    """
    top, left, height, width = params["crop"]
    parts = [f"crop {top},{left} {height}x{width}", *(["mirrored"] if params["flip"] else [])]
    parts += [name if size is None else f"{name} {size:.3g}" for name, size in params["ops"]]
    parts += ["erased"] if params["erase"] else []
    if params["partner"] is not None and params["lam"] < 1:
        kind = "cutmix" if params["cutmix"] else "mixup"
        parts.append(f"{kind} with {1 - params['lam']:.0%} of {params['partner']}")
    return ", ".join(parts)


def _own(own: NDArray[np.int32], layout: Layout, channels: int) -> dict[str, Any]:
    box, color = _box(own[layout.erased]), int(own[layout.fill])
    fill = [color >> 8 * channel & 255 for channel in range(channels)]
    return {
        "crop": own[TOP : WIDTH + 1].tolist(),
        "flip": bool(own[FLIP]),
        "ops": [
            [OPERATIONS[number], _magnitude(number, size)]
            for number, size in own[layout.operations].reshape(-1, 2).tolist()
            if number != IDENTITY
        ],
        "erase": None if box is None else {"box": box, "color": fill},
    }


def _magnitude(operation: int, size: int) -> float | None:
    if operation in _WITHOUT_MAGNITUDE:
        return None
    return size / _UNITS[operation] if operation in _UNITS else size


def _box(box: NDArray[np.int32]) -> list[float] | None:
    """Return a box as shares of the view's sides, or None if it is empty."""
    return [part / WHOLE for part in box.tolist()] if box[HEIGHT - TOP] else None
