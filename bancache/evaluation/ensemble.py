"""What nets say together on the test split: ensembles of them, and how often two give the same answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from bancache.evaluation.predict import agreement, ensemble, predict, score
from bancache.models.checkpoint import load_checkpoint
from bancache.models.teacher import build_from
from bancache.report.results import Record
from bancache.sources.base import ImageSet
from bancache.views.renderer import Normalization


@dataclass(frozen=True)
class Member:
    """One finished net.

    Attributes:
        name: ``baseline``, ``BAN-1``, ``labels-1`` and so on.
        path: Its checkpoint.
        fingerprint: Of its weights.
    """

    name: str
    path: Path
    fingerprint: str


@dataclass
class Panel:
    """Nets before one test split; each is asked once, when its answers are first needed.

    Attributes:
        test: The split.
        device: Where the nets answer.
        amp: Whether under bfloat16 autocast.
    """

    test: ImageSet
    device: torch.device
    amp: bool
    _answers: dict[str, NDArray[Any]] = field(default_factory=dict)

    def scores(self, members: Sequence[Member]) -> Record:
        """Return the figures of the members' mean prediction (workshop paper, eq. 4)."""
        return asdict(score(ensemble([self._ask(member) for member in members]), self.test.labels))

    def agreements(self, member: Member, others: Sequence[Member]) -> list[Record]:
        """Return for each other net on which share of the images it gives the same answer."""
        mine = self._ask(member)
        return [
            {
                "net": other.name,
                "weights": other.fingerprint,
                "share": agreement(mine, self._ask(other)),
            }
            for other in others
        ]

    def _ask(self, member: Member) -> NDArray[Any]:
        if member.fingerprint not in self._answers:
            checkpoint = load_checkpoint(member.path)
            self._answers[member.fingerprint] = predict(
                build_from(checkpoint).to(self.device),
                self.test,
                Normalization.from_dict(checkpoint.header["normalisation"]),
                device=self.device,
                amp=self.amp,
            )
        return self._answers[member.fingerprint]
