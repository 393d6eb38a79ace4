"""Checks of stored rows against what their encoding always writes, on the stored numbers alone, without torch.

A row that was never written is all zero. It fails every check but that of float32, whose logits may be zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.bool_]


def describe_invalid_rows(
    config: Mapping[str, Any], classes: int, fields: Mapping[str, NDArray[Any]]
) -> str | None:
    """Say how many rows cannot come from the encoder, and why; None if there are none.

    >>> describe_invalid_rows({"id": "root-1", "levels": 256}, 2, {"q": np.array([[255, 3], [0, 0]], np.uint8)})
    '1 of 2 rows were not written by its encoding, first row 1: no class has the highest level'
    """
    rows, reason = invalid_rows(config, classes, fields)
    if not rows.any():
        return None
    first = int(np.argmax(rows))
    return (
        f"{int(rows.sum())} of {len(rows)} rows were not written by its encoding, first row {first}: {reason}"
    )


def invalid_rows(
    config: Mapping[str, Any], classes: int, fields: Mapping[str, NDArray[Any]]
) -> tuple[Rows, str]:
    """Return which rows no encoder writes, bool (B,), and why; no rows for an unknown encoding."""
    match config.get("id"):
        case "root-1":
            return fields["q"].max(axis=1) != config["levels"] - 1, "no class has the highest level"
        case "dense-1":
            return _dense(config["name"], fields["logits"])
        case "dense-shift-1":
            invalid, reason = _dense(config["name"], fields["logits"])
            return invalid | ~np.isfinite(fields["shift"]), reason
        case "int8-1":
            valid = (fields["q"].max(axis=1) == 255) & np.isfinite(fields["step"]) & (fields["step"] >= 0)
            return ~valid, "no class has the highest step, or the step's size is negative or not finite"
        case "topk-1":
            return _topk(classes, fields)
        case _:
            return np.zeros(len(next(iter(fields.values()))), bool), ""


def _dense(name: str, stored: NDArray[Any]) -> tuple[Rows, str]:
    if name == "bfloat16":  # stored as int16; sixteen zero bits make it a float32
        stored = (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    finite = np.isfinite(stored).all(axis=1)
    if name == "float32":
        return ~finite, "a logit is not finite"
    return ~(finite & (stored.max(axis=1) == 0)), "the largest logit is not 0, or a logit is not finite"


def _topk(classes: int, fields: Mapping[str, NDArray[Any]]) -> tuple[Rows, str]:
    index, logits, rest = fields["index"], fields["logits"].astype(np.float32), fields["rest"]
    ordered = np.sort(index, axis=1)
    valid = (ordered[:, 0] >= 0) & (ordered[:, -1] < classes) & (np.diff(ordered, axis=1) > 0).all(axis=1)
    valid &= (logits[:, 0] == 0) & np.isfinite(logits).all(axis=1)
    valid &= (np.diff(logits, axis=1) <= 0).all(axis=1)
    # Rounding may bring a sum of float32 probabilities above one.
    valid &= (rest >= 0) & (rest <= 1 + 1e-5)
    return ~valid, "a class is repeated or out of order, or the rest is not a probability"
