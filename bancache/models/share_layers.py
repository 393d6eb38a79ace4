"""A student takes its teacher's first and last layer, as the paper's Match students do."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from bancache.errors import UsageError

ShareMode = Literal["copy", "freeze", "none"]


def share_ends(student: nn.Module, teacher: nn.Module, mode: ShareMode) -> None:
    """The student's first and last layer have the teacher's weights; every shape is checked before any is copied.

    Args:
        student: Changed in place.
        teacher: Not changed, and not referred to afterwards.
        mode: ``"copy"`` lets the copied layers learn on, ``"freeze"`` takes their gradients away (make the optimizer
            afterwards), ``"none"`` does nothing.

    Raises:
        UsageError: One of the nets has no named ends, or their shapes differ; the message has both shapes.
    """
    if mode not in {"copy", "freeze", "none"}:
        raise UsageError(f"ends are shared by 'copy', 'freeze' or 'none', not {mode!r}")
    if mode == "none":
        return
    for name in ("first_layer", "last_layer"):
        _check(name, _end(student, name, "student"), _end(teacher, name, "teacher"))
    for name in ("first_layer", "last_layer"):
        end = _end(student, name, "student")
        with torch.no_grad():
            end.load_state_dict(_end(teacher, name, "teacher").state_dict())
        if mode == "freeze":
            end.requires_grad_(requires_grad=False)


def _end(net: nn.Module, name: str, role: str) -> nn.Module:
    """The layer of that name."""
    end = getattr(net, name, None)
    if isinstance(end, nn.Module):
        return end
    raise UsageError(
        f"the {role} ({type(net).__name__}) does not say which layer is its {name}, so ends cannot be shared",
        hint="share ends between bancache's own nets only, or choose 'none'",
    )


def _check(name: str, student: nn.Module, teacher: nn.Module) -> None:
    """Refuse layers whose weights differ in name or shape."""
    shapes = [
        {key: tuple(value.shape) for key, value in end.state_dict().items()} for end in (student, teacher)
    ]
    if shapes[0] != shapes[1]:
        raise UsageError(
            f"{name}: the student's is {shapes[0]}, the teacher's {shapes[1]}",
            hint="a match net of this teacher (match-wrn-1-1@TEACHER) has its ends; or choose 'none'",
        )
