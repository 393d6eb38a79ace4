"""The models of a study on one split: their scores, their ensembles, and how far two of them are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from bancache.evaluation.checkpoints import predict_with, predict_with_teacher
from bancache.evaluation.predict import agreement, divergence, ensemble, score
from bancache.models.checkpoint import load_checkpoint
from bancache.models.teacher import Teacher
from bancache.report.results import Record
from bancache.sources.image_set import ImageSet


@dataclass(frozen=True)
class Member:
    """A finished model or an ensemble: its name, such as ``BAN-1``, the sha256 of its weights, and what predicts.

    That is its checkpoint; a teacher, with the height and width that it sees; or the models of an ensemble.
    """

    name: str
    fingerprint: str
    source: Path | tuple[Teacher, tuple[int, int]] | tuple[Member, ...]


@dataclass
class MemberPredictions:
    """Predictions of members on one split, each computed once, when it is first needed; trained ones in ``amp``."""

    images: ImageSet
    device: torch.device
    amp: bool
    _predictions: dict[str, NDArray[Any]] = field(default_factory=dict)

    def scores(self, member: Member) -> Record:
        """Return the scores of a model, or of the mean prediction of an ensemble's (workshop paper, eq. 4)."""
        return asdict(score(self._predict(member), self.images.labels))

    def agreements(self, member: Member, others: Sequence[Member]) -> list[Record]:
        """Return for each other model how it compares.

        ``share`` is the part of the images that both put into the same class, ``kl`` the mean divergence of the member's
        probabilities from the other's, in nats.
        """
        own, found = self._predict(member), []
        for other in others:
            theirs = self._predict(other)
            compared = {"share": agreement(own, theirs), "kl": divergence(theirs, own)}
            found.append({"net": other.name, "weights": other.fingerprint, **compared})
        return found

    def _predict(self, member: Member) -> NDArray[Any]:
        if member.fingerprint not in self._predictions:
            self._predictions[member.fingerprint] = self._fresh(member.source)
        return self._predictions[member.fingerprint]

    def _fresh(self, source: Path | tuple[Any, ...]) -> NDArray[Any]:
        if isinstance(source, Path):
            return predict_with(load_checkpoint(source), self.images, device=self.device, amp=self.amp)
        if isinstance(source[0], Teacher):
            return predict_with_teacher(source[0], self.images, source[1], device=self.device)
        return ensemble([self._predict(member) for member in source])
