"""What every row of an encoding has, whatever the teacher said: found in the stored numbers alone, without torch.

A row that nobody wrote is all zero, and fails each of these but one: a float32 row may be zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.bool_]


def problem_of(config: Mapping[str, Any], classes: int, fields: Mapping[str, NDArray[Any]]) -> str | None:
    """Say how many rows no encoder writes, and what they lack, or None.

    >>> problem_of({"id": "root-1", "levels": 256}, 2, {"q": np.array([[255, 3], [0, 0]], np.uint8)})
    '1 of 2 rows were not written by its encoding, first row 1: no class has the highest level'
    """
    rows, lack = unsound_rows(config, classes, fields)
    if not rows.any():
        return None
    first = int(np.argmax(rows))
    return (
        f"{int(rows.sum())} of {len(rows)} rows were not written by its encoding, first row {first}: {lack}"
    )


def unsound_rows(
    config: Mapping[str, Any], classes: int, fields: Mapping[str, NDArray[Any]]
) -> tuple[Rows, str]:
    """Return which rows no encoder writes, bool (B,), and what they lack; of an unknown encoding, none.

    Args:
        config: The encoding's, as a manifest has it.
        classes: C.
        fields: The stored arrays, each (B, *shape).
    """
    match config.get("id"):
        case "root-1":
            q = fields["q"]
            return q.max(axis=1) != config["levels"] - 1, "no class has the highest level"
        case "dense-1":
            return _dense(config["name"], fields["logits"])
        case "dense-shift-1":
            wrong, lack = _dense(config["name"], fields["logits"])
            return wrong | ~np.isfinite(fields["shift"]), lack
        case "int8-1":
            sound = (fields["q"].max(axis=1) == 255) & np.isfinite(fields["step"]) & (fields["step"] >= 0)
            return ~sound, "no class has the highest step, or the step is no size"
        case "topk-1":
            return _topk(classes, fields)
        case _:
            return np.zeros(len(next(iter(fields.values()))), bool), ""


def _dense(name: str, stored: NDArray[Any]) -> tuple[Rows, str]:
    if name == "bfloat16":  # as int16: widened to float32 by sixteen zero bits
        stored = (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    finite = np.isfinite(stored).all(axis=1)
    if name == "float32":
        return ~finite, "a logit is not finite"
    return ~(finite & (stored.max(axis=1) == 0)), "no logit is the largest, 0, or one is not finite"


def _topk(classes: int, fields: Mapping[str, NDArray[Any]]) -> tuple[Rows, str]:
    index, logits, rest = fields["index"], fields["logits"].astype(np.float32), fields["rest"]
    ordered = np.sort(index, axis=1)
    sound = (ordered[:, 0] >= 0) & (ordered[:, -1] < classes) & (np.diff(ordered, axis=1) > 0).all(axis=1)
    sound &= (
        (logits[:, 0] == 0) & np.isfinite(logits).all(axis=1) & (np.diff(logits, axis=1) <= 0).all(axis=1)
    )
    # A sum of float32 probabilities may pass one by its rounding.
    sound &= (rest >= 0) & (rest <= 1 + 1e-5)
    return ~sound, "classes are named twice or not in order, or the rest is no probability"
