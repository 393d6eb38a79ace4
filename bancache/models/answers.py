"""What a model returns: logits, or something that has them."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def find_logits(answer: object, count: int) -> torch.Tensor | None:
    """Return the logits (count, classes) in what a model returned, or None.

    They are the attribute or item ``logits``, as in Hugging Face's and torchvision's outputs, else the only tensor of
    that shape; ``(count, classes, 1, 1)`` is one.
    """
    if isinstance(answer, Mapping):
        answer = answer["logits"] if "logits" in answer else tuple(answer.values())
    elif not isinstance(answer, torch.Tensor):
        answer = getattr(answer, "logits", answer)
    if isinstance(answer, tuple | list):
        found = [part for part in answer if _is_rows(part, count)]
        answer = found[0] if len(found) == 1 else None
    return answer.flatten(1) if isinstance(answer, torch.Tensor) and _is_rows(answer, count) else None


def sum_to_one(logits: torch.Tensor) -> bool:
    """Return whether all rows (B, classes) are probabilities: logits of a trained model never are."""
    return bool(((logits >= 0) & (logits <= 1)).all() and (logits.sum(dim=1) - 1).abs().max() < 1e-2)


def _is_rows(value: object, count: int) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and (value.ndim == 2 or (value.ndim == 4 and value.shape[2:] == (1, 1)))
        and len(value) == count
    )


def describe(answer: object) -> str:
    """Say what a model returned: shapes, and names of items.

    >>> describe({"a": torch.zeros(2, 3), "b": None})
    'a dict of a (2, 3), b NoneType'
    """
    if isinstance(answer, torch.Tensor):
        return str(tuple(answer.shape))
    if isinstance(answer, Mapping):
        parts = [f"{name} {describe(value)}" for name, value in answer.items()]
    elif isinstance(answer, tuple | list):
        parts = [describe(value) for value in answer]
    else:
        return type(answer).__name__
    return f"a {type(answer).__name__} of {', '.join(parts[:4])}{', …' if len(parts) > 4 else ''}"
