"""A teacher of several: the mean of their probabilities or of their logits, each on images normalized as its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from bancache.errors import UsageError
from bancache.models.teacher import Teacher
from bancache.system.fingerprint import fingerprint_json
from bancache.views.model_input import ModelInput, Normalization
from bancache.views.several_sizes import Size, at_size

Combine = Literal["probabilities", "logits"]


def ensemble(
    teachers: Sequence[Teacher],
    combine: str = "probabilities",
    sizes: Sequence[Size] | None = None,
) -> Teacher:
    """Return a teacher whose soft targets are the mean of those of several; their order does not matter.

    ``combine="probabilities"`` averages softmax(logits), and its logits are the logarithm of that mean; ``"logits"``
    averages the logits. Its ``input.normalization`` is the one to give to ``DumpSettings``: each member gets the same
    images normalized as its own. All members run in one precision, in float32 if one of them does. With ``sizes``, height
    and width in pixels for each of ``teachers``, each sees the same views at its own size; give the largest to
    ``DumpSettings``.

    Raises:
        UsageError: There are fewer than two, one of them has no ``input``, or ``combine`` is another word.
    """
    if combine not in get_args(Combine):
        raise UsageError(
            f"teachers are combined by {' or '.join(get_args(Combine))}, not '{combine}'",
            hint="use --combine",
        )
    if len(teachers) < 2 or any(teacher.input is None for teacher in teachers):
        raise UsageError("an ensemble has two teachers or more, each with a known normalization")
    shown: Sequence[Size | None] = sizes if sizes and len(set(sizes)) > 1 else [None] * len(teachers)
    order = sorted(zip(teachers, shown, strict=True), key=lambda member: fingerprint_json(_identity(*member)))
    members = tuple(teacher for teacher, _ in order)
    own_sizes = tuple(size for _, size in order if size is not None)
    known = _input(members[0])
    checkpoints = all(teacher.header for teacher in teachers)
    return Teacher(
        model=Ensemble(members, cast(Combine, combine), own_sizes),
        fingerprint=fingerprint_json({"combine": combine, "members": [_identity(*each) for each in order]}),
        architecture=_architecture(teachers),
        header=_header(teachers) if checkpoints else {},
        path=" + ".join(teacher.path for teacher in teachers),
        precision=min((teacher.precision for teacher in members), key=("float32", "bfloat16").index),
        input=ModelInput(known.size, known.normalization, known.origin),
        outputs="logits",
        members=members,
        combine=combine,
        sizes=own_sizes,
    )


class Ensemble(nn.Module):
    """Maps images, normalized as those of the first member, to the logits of the mean, float32 (B, classes).

    Members that see other sizes have them from one tensor, ``views.several_sizes``.
    """

    def __init__(self, members: Sequence[Teacher], combine: Combine, sizes: Sequence[Size] = ()) -> None:
        """Take the members' models; of images normalized as the member's own, no bit changes."""
        super().__init__()
        self.models = nn.ModuleList(member.model for member in members)
        self.training = False  # as all members; exported graphs refuse a call of eval
        self._members, self._combine, self._sizes = members, combine, sizes
        device = next((each.device for each in self.models.parameters()), torch.device("cpu"))
        first = _input(members[0]).normalization
        self._changes = [_change(first, _input(member).normalization, device) for member in members]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of the mean."""
        parts = [member.answer(self._own(number, images)) for number, member in enumerate(self._members)]
        if len({part.shape[1] for part in parts}) > 1:
            names = ", ".join(f"{m.path} {p.shape[1]}" for m, p in zip(self._members, parts, strict=True))
            raise UsageError(f"the teachers have different numbers of classes: {names}")
        if self._combine == "logits":
            return torch.stack(parts).mean(dim=0)
        together = torch.stack([torch.log_softmax(part, dim=1) for part in parts])
        return torch.logsumexp(together, dim=0) - math.log(len(parts))

    def _own(self, number: int, images: torch.Tensor) -> torch.Tensor:
        if self._sizes:
            images = at_size(images, self._sizes[number], self._sizes)
        if (change := self._changes[number]) is not None:
            return images * change[0] + change[1]
        # A model of others may write over its images, as one does whose first layer works in place.
        return images if self._members[number].header else images.clone()


def members_of(teacher: Teacher) -> dict[str, Any]:
    """Return what a cache's manifest says of an ensemble: ``combine`` and ``members``; nothing of a single teacher."""
    if not teacher.members:
        return {}
    members = [
        {
            **_identity(member, size),
            "architecture": member.architecture,
            "generation": member.header.get("generation", 0),
            "accuracy": member.header.get("test", {}).get("accuracy"),
            "path": member.path,
            "input": _input(member).to_dict(),
        }
        for member, size in zip(teacher.members, teacher.sizes or [None] * len(teacher.members), strict=True)
    ]
    return {"combine": teacher.combine, "members": members}


def _identity(teacher: Teacher, size: Size | None) -> dict[str, Any]:
    """Return what decides a member's part of the targets; ``size`` where not all members see the same."""
    return {
        **({} if size is None else {"size": list(size)}),
        "fingerprint": teacher.fingerprint,
        "normalisation": _input(teacher).normalization.to_dict(),
        "outputs": teacher.outputs or "logits",
    }


def _input(teacher: Teacher) -> ModelInput:
    assert teacher.input is not None
    return teacher.input


def _change(
    first: Normalization, own: Normalization, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return factor and summand that make images of one normalization those of another, (C, 1, 1); None if they are equal."""
    if first == own:
        return None
    if len(first.mean) != len(own.mean):
        raise UsageError(f"one teacher sees {len(first.mean)} channels, another {len(own.mean)}")
    (m0, s0), (m1, s1) = (torch.tensor([each.mean, each.std], dtype=torch.float64) for each in (first, own))
    scale, shift = s0 / s1, (m0 - m1) / s1
    return scale.to(device, torch.float32)[:, None, None], shift.to(device, torch.float32)[:, None, None]


def _architecture(teachers: Sequence[Teacher]) -> dict[str, Any]:
    """Return the architecture of all, so that students have it by default, or a name that nothing can be built by."""
    first = teachers[0].architecture
    if all(teacher.architecture == first for teacher in teachers):
        return first
    return {"name": " + ".join(str(teacher.architecture["name"]) for teacher in teachers)}


def _header(teachers: Sequence[Teacher]) -> dict[str, Any]:
    """Return the header of the first checkpoint, but for what is of one training only."""
    kept = (
        "data",
        "data_as_typed",
        "data_fingerprint",
        "classes",
        "views",
        "recipe",
        "seed",
        "normalisation",
    )
    header = {key: value for key, value in teachers[0].header.items() if key in kept}
    return {**header, "generation": max(teacher.header.get("generation", 0) for teacher in teachers)}
