"""A student takes its teacher's first and last layer, as the paper's Match students do."""

from __future__ import annotations

from typing import Literal

from torch import nn

from bancache.errors import UsageError

ShareMode = Literal["copy", "freeze", "none"]
_LAYERS = ("first_layer", "last_layer")


def share_layers(student: nn.Module, teacher: nn.Module, mode: ShareMode) -> None:
    """Copy the weights of the teacher's first and last layer to the student. All shapes are checked first.

    Args:
        student: Changed in place.
        teacher: Not changed, and not referred to afterwards.
        mode: ``copy`` trains the copied layers further, ``freeze`` takes their gradients away (create the optimizer
            afterwards), ``none`` does nothing.

    Raises:
        UsageError: A model does not name its first and last layer, or the shapes differ; the message has both shapes.
    """
    if mode not in {"copy", "freeze", "none"}:
        raise UsageError(f"layers are shared by 'copy', 'freeze' or 'none', not {mode!r}")
    if mode == "none":
        return
    pairs = [(name, _layer(student, name, "student"), _layer(teacher, name, "teacher")) for name in _LAYERS]
    for name, *layers in pairs:
        shapes = [{key: tuple(value.shape) for key, value in layer.state_dict().items()} for layer in layers]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"{name}: the student's is {shapes[0]}, the teacher's {shapes[1]}",
                hint="a match model of this teacher (match-wrn-1-1@TEACHER) has the same layers; or choose 'none'",
            )
    for _, own, source in pairs:
        own.load_state_dict(source.state_dict())
        if mode == "freeze":
            own.requires_grad_(requires_grad=False)


def _layer(model: nn.Module, name: str, role: str) -> nn.Module:
    layer = getattr(model, name, None)
    if isinstance(layer, nn.Module):
        return layer
    raise UsageError(
        f"the {role} ({type(model).__name__}) has no {name}, so its layers cannot be shared",
        hint="share layers between bancache's own models only, or choose 'none'",
    )
