"""Predictions of finished models on a test split: their ensembles, and how often two models agree."""

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
from bancache.sources.image_set import ImageSet
from bancache.views.renderer import Normalization


@dataclass(frozen=True)
class Member:
    """One finished model.

    Attributes:
        name: ``baseline``, ``BAN-1``, ``labels-1`` and so on.
        path: Its checkpoint.
        fingerprint: sha256 of its weights.
    """

    name: str
    path: Path
    fingerprint: str


@dataclass
class MemberPredictions:
    """Predictions of members on one test split, each computed once, when it is first needed.

    Attributes:
        test: The split.
        device: Where the models run.
        amp: Whether under bfloat16 autocast.
    """

    test: ImageSet
    device: torch.device
    amp: bool
    _predictions: dict[str, NDArray[Any]] = field(default_factory=dict)

    def scores(self, members: Sequence[Member]) -> Record:
        """Return the scores of the members' mean prediction (workshop paper, eq. 4)."""
        return asdict(score(ensemble([self._predict(member) for member in members]), self.test.labels))

    def agreements(self, member: Member, others: Sequence[Member]) -> list[Record]:
        """Return for each other model the share of images that both put into the same class."""
        own = self._predict(member)
        return [
            {"net": o.name, "weights": o.fingerprint, "share": agreement(own, self._predict(o))}
            for o in others
        ]

    def _predict(self, member: Member) -> NDArray[Any]:
        if member.fingerprint not in self._predictions:
            checkpoint = load_checkpoint(member.path)
            model = build_from(checkpoint).to(self.device)
            normalization = Normalization.from_dict(checkpoint.header["normalisation"])
            predictions = predict(model, self.test, normalization, device=self.device, amp=self.amp)
            self._predictions[member.fingerprint] = predictions
        return self._predictions[member.fingerprint]
