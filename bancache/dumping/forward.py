"""Asking a teacher for one shard: render its views, answer, encode, measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.cache.layout import Shard
from bancache.cache.sizes import stored_bytes
from bancache.dumping.noise import NoiseFloor, noise_floor
from bancache.dumping.shard_stats import ShardStats, host_room, require_finite
from bancache.encodings import Encoding
from bancache.errors import NonFiniteError, OutOfMemoryError, UsageError, is_out_of_memory
from bancache.models.teacher import Teacher
from bancache.sources.base import ImageSet
from bancache.views.renderer import Renderer

if TYPE_CHECKING:
    from bancache.dumping.run import DumpSettings


@dataclass(frozen=True)
class Answered:
    """What the teacher said of a shard, on its way from the device to pinned memory.

    Attributes:
        fields: For each field, a tensor (rows, *shape) in the host's memory.
        found: What was found while making them.
        once: Facts that are found once, with the first shard: what the teacher differs from itself by.
        arrived: Recorded behind the last copy; None where copies are done when they return.
    """

    fields: dict[str, torch.Tensor]
    found: ShardStats
    once: dict[str, NoiseFloor | None]
    arrived: torch.cuda.Event | None

    def collect(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the shard's fields as arrays, and what was found while making them.

        Raises:
            NonFiniteError: A logit is not finite.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        return {name: part.numpy() for name, part in self.fields.items()}, {**self.found.facts(), **self.once}


class TeacherForward:
    """Asks the teacher for one shard at a time."""

    def __init__(
        self, teacher: Teacher, data: ImageSet, renderer: Renderer, encoding: Encoding, settings: DumpSettings
    ) -> None:
        self._teacher, self._renderer, self._encoding, self._settings = teacher, renderer, encoding, settings
        self._labels = torch.tensor(data.labels, device=renderer.device)
        self._classes = len(data.classes)
        self._probed: torch.Tensor | None = None

    def probe(self) -> float:
        """Ask for the first batch and write nothing, so that a teacher that cannot answer leaves no cache behind.

        Returns:
            How many bytes an entry of it takes on disk; of a compact cache, as many as in view index 0 at most.
        """
        batch = Shard(0, 0, 0, 0, min(self._settings.batch_size, len(self._labels)))
        samples = np.arange(batch.stop)
        self._probed = logits = self._ask(samples, self._settings.space.view_ids(samples, 0))
        require_finite(logits, batch, 0)
        fields = {name: part.cpu().numpy() for name, part in self._encoding.encode(logits).items()}
        return stored_bytes(fields, self._classes, self._settings.profile) / len(samples)

    def answer(self, shard: Shard, advance: Any) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the shard's fields as arrays, and what was found while making them."""
        return self.ask(shard, advance).collect()

    def ask(self, shard: Shard, advance: Any) -> Answered:
        """Ask for a shard without waiting for any of it to come from the device."""
        samples, size = np.arange(shard.start, shard.stop), self._settings.batch_size
        views = self._settings.space.view_ids(samples, shard.view_index)
        host: dict[str, torch.Tensor] = {}
        once: dict[str, NoiseFloor | None] = {}
        found = ShardStats(shard, self._encoding, self._labels, batch_size=size)
        for start in range(0, len(samples), size):
            part = slice(start, start + size)
            logits = self._probe_of(shard, start, len(samples[part]))
            if logits is None:
                logits = self._ask(samples[part], views[part])
            if shard.index == start == 0:
                shown = self._render(samples[part], views[part])
                once["noise_floor"] = noise_floor(self._teacher, shown, logits)
            fields = self._encode(logits, shard, start)
            for name, values in fields.items():
                if name not in host:
                    host[name] = host_room((len(samples), *values.shape[1:]), values.dtype, values.device)
                host[name][part].copy_(values, non_blocking=True)
            found.add(logits, fields)
            advance(len(logits))
        device = self._labels.device
        arrived = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None
        return Answered(host, found, once, arrived)

    def _probe_of(self, shard: Shard, start: int, count: int) -> torch.Tensor | None:
        """Return the answers that the probe has, if what is asked for first is the very batch that it asked for."""
        probed, self._probed = self._probed, None
        is_it = shard.index == start == 0 and probed is not None and len(probed) == count
        return probed if is_it else None

    def _encode(self, logits: torch.Tensor, shard: Shard, start: int) -> dict[str, torch.Tensor]:
        try:
            return self._encoding.encode(logits)
        except NonFiniteError:
            # Logits that do not fit a code may be none at all, which is what one has to know first.
            require_finite(logits, shard, start)
            raise

    def _render(self, samples: NDArray[np.int64], views: NDArray[np.int64]) -> torch.Tensor:
        which, ids = (torch.from_numpy(numbers).to(self._renderer.device) for numbers in (samples, views))
        return self._renderer.render(which, ids)

    def _ask(self, samples: NDArray[np.int64], views: NDArray[np.int64]) -> torch.Tensor:
        """Return what the teacher says of samples' views, float32 (B, classes)."""
        try:
            logits = self._teacher.logits(self._render(samples, views))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            # Not halved in silence: the batch size may change the last bit, so the cache is bound to it.
            raise OutOfMemoryError(
                f"{self._renderer.device} has no memory for {len(samples)} images in one pass of the teacher",
                hint="give a smaller --batch-size; a cache that was begun with another needs --overwrite too",
            ) from error
        if logits.shape[1] != self._classes:
            raise UsageError(
                f"the teacher answers with {logits.shape[1]} classes, the data set has {self._classes}",
                hint="name the teacher's own data set with --data",
            )
        return logits
