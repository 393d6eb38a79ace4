"""Probabilities of a model on a data set, and their scores: accuracy, likelihood, calibration."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bancache.errors import NonFiniteError
from bancache.sources.image_set import ImageSet
from bancache.system.progress import Progress, Silent
from bancache.system.stored import StoredImages
from bancache.views.factory import choose_renderer, renderer_of_sizes
from bancache.views.lattice import Lattice
from bancache.views.model_input import Normalization
from bancache.views.renderer import Renderer
from bancache.views.space import ViewSpace

_BINS = 15
_PIXELS_AT_ONCE = 500 * 32 * 32


@dataclass(frozen=True)
class Scores:
    """Scores of a set of predictions: accuracy, error = 1 - accuracy, and the mean log-likelihood in nats.

    ``chance`` is the share of the most frequent label. ``ece`` is the expected calibration error over 15 equal bins of
    confidence (Guo et al., 2017, eq. 3), ``bins`` the reliability diagram: ``low``, ``high``, ``count``, mean
    ``confidence``, ``accuracy``.
    """

    accuracy: float
    error: float
    nll: float
    ece: float
    samples: int
    chance: float
    bins: list[dict[str, Any]]


def images_at_once(height: int, width: int) -> int:
    """Return how many images of a size go through a model at once: at most 500, and as many pixels as in 500 of CIFAR."""
    return min(500, max(1, _PIXELS_AT_ONCE // (height * width)))


class Evaluator:
    """Predicts every image of a data set, without augmentation, by one model after another.

    The images stay where batches appear, in the device's memory, or are read a few batches ahead if they are not in memory.
    Nothing is read back before the last batch.
    """

    def __init__(
        self,
        data: ImageSet,
        normalization: Normalization,
        *,
        device: torch.device,
        views: ViewSpace | None = None,
        size: tuple[int, int] | None = None,
        sizes: Sequence[tuple[int, int]] = (),
        batch_size: int | None = None,
        amp: bool = False,
    ) -> None:
        """Keep the images on the device.

        Args:
            data: The images.
            normalization: Of the models' input.
            device: Where the models are.
            views: The view space that they were trained on, which says how they are tested; by default whole images.
            size: Height and width of their input; by default those of the images.
            sizes: Those of an ensemble's members, which then has the images at all of them in one tensor.
            batch_size: Images at a time; by default ``images_at_once``.
            amp: Whether they run in bfloat16 autocast.
        """
        space = (views or Lattice()).evaluation
        # Autocast would round the images anyway.
        dtype = torch.bfloat16 if amp and device.type == "cuda" else torch.float32
        self._renderer: Renderer = (
            renderer_of_sizes(data.images, space, normalization, sizes, device=device)
            if sizes
            else choose_renderer(data.images, space, normalization, size=size, device=device, dtype=dtype)
        )
        self._batch_size = batch_size or images_at_once(*self._renderer.size)
        samples = np.arange(len(data))
        self._addresses = samples, space.view_ids(samples, 0)
        stored = isinstance(data.images, StoredImages)
        self._ids = None if stored else self._renderer.to_device(*self._addresses)
        self._device, self._amp = device, amp

    @torch.no_grad()
    def predict(self, model: nn.Module, progress: Progress | None = None) -> NDArray[np.float64]:
        """Return the probabilities of a model, which maps images (B, C, H, W) to logits (B, classes): float64 (N, classes).

        The model runs in eval mode, and is left in the mode that it had. ``progress`` gets a stage.

        Raises:
            NonFiniteError: The logits are NaN or infinite.
        """
        training = model.training
        model.eval()
        parts, total = [], len(self._addresses[0])
        with (
            (progress or Silent()).stage("evaluate", total=total, unit="images") as stage,
            closing(self._images()) as batches,
        ):
            for images in batches:
                with torch.autocast(self._device.type, torch.bfloat16, enabled=self._amp):
                    logits = model(images)
                parts.append(torch.softmax(logits.double(), dim=1))
                stage.advance(len(logits))
        model.train(training)
        probabilities: NDArray[np.float64] = torch.cat(parts).cpu().numpy()
        if not np.isfinite(probabilities).all():
            raise NonFiniteError("the model's logits are NaN or infinite", hint="train with a smaller --lr")
        return probabilities

    def _images(self) -> Generator[torch.Tensor, None, None]:
        size = self._batch_size
        if self._ids is None:
            for _, _, images in self._renderer.batches(*self._addresses, size):
                yield images
            return
        samples, rows = self._ids
        for start in range(0, len(samples), size):
            yield self._renderer.render(samples[start : start + size], rows[start : start + size])


def score(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> Scores:
    """Return the scores of probabilities (N, classes) against labels (N,)."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins, ece = _reliability(confidence, right)
    likelihood = probabilities[np.arange(len(labels)), labels]
    accuracy = float(right.mean())
    return Scores(
        accuracy=accuracy,
        error=float((~right).mean()),
        nll=float(-np.log(np.maximum(likelihood, np.finfo(np.float64).tiny)).mean()),
        ece=ece,
        samples=len(labels),
        chance=float(np.bincount(labels).max() / len(labels)),
        bins=bins,
    )


def ensemble(members: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean of the members' probabilities (workshop paper, eq. 4)."""
    mean: NDArray[np.float64] = np.mean(np.stack(members), axis=0)
    return mean


def agreement(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the share of images for which two models, right or wrong, predict the same class."""
    return float((first.argmax(axis=1) == second.argmax(axis=1)).mean())


def divergence(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the mean over images of the Kullback-Leibler divergence KL(first ‖ second), in nats."""
    tiny = np.finfo(np.float64).tiny
    logs = np.log(np.maximum(first, tiny)) - np.log(np.maximum(second, tiny))
    return max(0.0, float((first * logs).sum(axis=1).mean()))


def _reliability(
    confidence: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[list[dict[str, Any]], float]:
    edges = np.linspace(0, 1, _BINS + 1)
    # A bin includes its upper edge: confidence 1 must fall into a bin, 0 cannot occur.
    bin_of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, _BINS - 1)
    bins, ece = [], 0.0
    for index in range(_BINS):
        inside = bin_of == index
        count = int(inside.sum())
        mean = float(confidence[inside].mean()) if count else 0.0
        accuracy = float(right[inside].mean()) if count else 0.0
        ece += count / len(right) * abs(mean - accuracy)
        bins.append(
            {
                "low": float(edges[index]),
                "high": float(edges[index + 1]),
                "count": count,
                "confidence": mean,
                "accuracy": accuracy,
            }
        )
    return bins, ece
