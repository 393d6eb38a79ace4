"""Asking a teacher for one region: render its views, answer, encode, measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.cache.layout import Region
from bancache.cache.sizes import stored_bytes
from bancache.dump.noise import NoiseFloor, noise_floor
from bancache.encodings import Encoding
from bancache.encodings.fidelity import Tally, merge, tally
from bancache.errors import NonFiniteError, OutOfMemoryError, UsageError, is_out_of_memory
from bancache.sources.base import ImageSet
from bancache.teacher import Teacher
from bancache.views.apply import Renderer

if TYPE_CHECKING:
    from bancache.dump.run import DumpSettings


@dataclass(frozen=True)
class Answered:
    """What the teacher said of a region, on its way from the device to pinned memory.

    Attributes:
        fields: For each field, a tensor (rows, *shape) in the host's memory.
        tallies: What the encoding lost, a batch each.
        counts: float64 (batches, 2) in the host's memory: right answers, and the sum of the largest probabilities.
        finite: How many logits were looked at.
        once: Facts that are found once, with the first region: what the teacher differs from itself by.
        arrived: Recorded behind the last copy; None where copies are done when they return.
    """

    fields: dict[str, torch.Tensor]
    tallies: list[Tally]
    counts: torch.Tensor
    finite: int
    once: dict[str, NoiseFloor | None]
    arrived: torch.cuda.Event | None

    def collect(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the region's fields as arrays, and what was found while making them."""
        if self.arrived is not None:
            self.arrived.synchronize()
        correct, confidence = 0, 0.0
        for right, sure in self.counts.tolist():
            correct, confidence = correct + int(right), confidence + sure
        facts = {
            "tally": merge(self.tallies),
            "correct": correct,
            "confidence": confidence,
            "finite": self.finite,
        }
        return {name: part.numpy() for name, part in self.fields.items()}, {**facts, **self.once}


class Asker:
    """Asks the teacher for one region at a time."""

    def __init__(
        self, teacher: Teacher, data: ImageSet, renderer: Renderer, encoding: Encoding, settings: DumpSettings
    ) -> None:
        self._teacher, self._renderer, self._encoding, self._settings = teacher, renderer, encoding, settings
        self._labels = torch.tensor(data.labels, device=renderer.device)
        self._classes = len(data.classes)

    def probe(self) -> float:
        """Ask for one batch and keep nothing, so that a teacher that cannot answer leaves no cache behind.

        Returns:
            How many bytes an entry of it takes on disk; of a compact cache, as many as in slot 0 at most.
        """
        samples = np.arange(min(self._settings.batch_size, len(self._labels)))
        logits = self._ask(samples, self._settings.space.view_ids(samples, 0), slot=0)
        fields = {name: part.cpu().numpy() for name, part in self._encoding.encode(logits).items()}
        return stored_bytes(fields, self._classes, self._settings.profile) / len(samples)

    def answer(self, region: Region, advance: Any) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the region's fields as arrays, and what was found while making them."""
        return self.ask(region, advance).collect()

    def ask(self, region: Region, advance: Any) -> Answered:
        """Ask for a region without waiting for the last of it to come from the device."""
        samples = np.arange(region.start, region.stop)
        views = self._settings.space.view_ids(samples, region.slot)
        host: dict[str, torch.Tensor] = {}
        tallies: list[Tally] = []
        counts = []
        for start in range(0, len(samples), self._settings.batch_size):
            part = slice(start, start + self._settings.batch_size)
            logits = self._ask(samples[part], views[part], slot=region.slot)
            fields = self._encoding.encode(logits)
            tallies.append(tally(self._encoding, logits, fields))
            right = (logits.argmax(dim=1) == self._labels[region.start : region.stop][part]).sum()
            counts.append(
                torch.stack([right.double(), torch.softmax(logits.double(), dim=1).amax(dim=1).sum()])
            )
            for name, values in fields.items():
                if name not in host:
                    host[name] = _host(values, len(samples))
                host[name][part].copy_(values, non_blocking=True)
            advance(len(logits))
        total = torch.stack(counts)
        found = _host(total, len(total)).copy_(total, non_blocking=True)
        arrived = torch.cuda.current_stream(total.device).record_event() if total.is_cuda else None
        first = samples[: self._settings.batch_size]
        once = {"noise_floor": self._noise(first)} if region.index == 0 else {}
        return Answered(host, tallies, found, len(samples) * self._classes, once, arrived)

    def _noise(self, samples: NDArray[np.int64]) -> NoiseFloor | None:
        return noise_floor(self._teacher, self._renderer, samples, self._settings.space.view_ids(samples, 0))

    def _ask(self, samples: NDArray[np.int64], views: NDArray[np.int64], *, slot: int) -> torch.Tensor:
        """Return what the teacher says of samples' views, float32 (B, classes), all finite."""
        which, ids = (torch.from_numpy(numbers).to(self._renderer.device) for numbers in (samples, views))
        try:
            logits = self._teacher.logits(self._renderer.render(which, ids))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            # Not halved in silence: the batch size may change the last bit, so the cache is bound to it.
            raise OutOfMemoryError(
                f"{self._renderer.device} has no memory for {len(samples)} images in one pass of the teacher",
                hint="give a smaller --batch-size; a cache that was begun with another needs --overwrite too",
            ) from error
        self._check(logits, samples, slot)
        return logits

    def _check(self, logits: torch.Tensor, samples: NDArray[np.int64], slot: int) -> None:
        if logits.shape[1] != self._classes:
            raise UsageError(
                f"the teacher answers with {logits.shape[1]} classes, the data set has {self._classes}",
                hint="name the teacher's own data set with --data",
            )
        finite = torch.isfinite(logits).cpu().numpy()
        if not finite.all():
            first = int(samples[np.argmin(finite.all(axis=1))])
            raise NonFiniteError(
                f"the teacher gave {int((~finite).sum())} non-finite logits, first sample {first}, slot {slot}",
                hint="the teacher has diverged, or overflows: try --precision float32",
            )


def _host(values: torch.Tensor, rows: int) -> torch.Tensor:
    """Return room for ``rows`` rows like those of ``values``, where copies from a GPU need not be waited for."""
    return torch.empty((rows, *values.shape[1:]), dtype=values.dtype, pin_memory=values.is_cuda)
