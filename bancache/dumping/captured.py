"""The teacher's forward pass over one shard on a GPU: a CUDA graph renders a batch and runs the model.

The addresses of all views are copied to the device at once, and a counter there selects the next batch. Logits stay
there until the shard is done; then they are encoded and measured together, and one copy brings codes and figures to
the host. Nothing waits until the writing thread asks for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bancache.cache.layout import Shard, block_of
from bancache.dumping.forward import Advance, Collect, NoiseFloor, TeacherForward, noise_floor
from bancache.dumping.settings import DumpSettings
from bancache.dumping.summary import facts_of
from bancache.encodings import Encoding
from bancache.encodings.dense import require_float16
from bancache.encodings.measuring import encode_and_measure
from bancache.errors import UsageError
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.system.capturing import DEVICE_TYPES, Replay, capture
from bancache.system.progress import Progress, Silent
from bancache.system.stored import StoredImages

# Logits that are kept until they are encoded; the same work in torch takes ten times as much memory.
_NUMBERS = 1 << 24
_WARM_UPS = 1  # the teacher's weights do not change, so a pass leaves nothing behind but its logits
_FEWEST = _WARM_UPS + 2  # batches that pass before the counter is set again


def open_forward(
    teacher: Teacher,
    data: ImageSet,
    encoding: Encoding,
    settings: DumpSettings,
    device: torch.device,
    progress: Progress | None = None,
) -> TeacherForward:
    """Return what runs a teacher on shards on a device; OutOfMemoryError if a batch cannot fit.

    A graph cannot read pictures from disk, so those are shown batch by batch.
    """
    if device.type in DEVICE_TYPES and not isinstance(data.images, StoredImages):
        return CapturedForward(teacher, data, encoding, settings, device, progress or Silent())
    return TeacherForward(teacher, data, encoding, settings, device, progress or Silent())


class CapturedForward(TeacherForward):
    """Runs the teacher on one shard at a time, and gets ahead of the device.

    All batches have the same size, as a graph has to. It is the largest up to that of the settings that divides a
    shard evenly, so that few views are rendered only to fill the last batch; their logits are cut off.
    """

    def __init__(
        self,
        teacher: Teacher,
        data: ImageSet,
        encoding: Encoding,
        settings: DumpSettings,
        device: torch.device,
        progress: Progress,
    ) -> None:
        """Take memory for the addresses and logits of a shard; the first batch captures the graph."""
        super().__init__(teacher, data, encoding, settings, device, progress)
        block = settings.shard_samples or block_of(len(data), encoding.fields(), settings.profile)
        self._at_once = _ceil(block, _ceil(block, settings.batch_size))
        most = max(1, _NUMBERS // (self._at_once * self._classes))
        self._batches = max(_FEWEST, min(_ceil(block, self._at_once), most))
        shape = self._batches, self._at_once
        self._replay: Replay | None = None
        self._next = torch.zeros(1, dtype=torch.int64, device=device)
        self._kept = torch.zeros((*shape, self._classes), device=device)
        self._addresses: tuple[torch.Tensor, torch.Tensor] | None = None
        self._shown = self.renderer.in_dtype(teacher.input_dtype)

    def start(self, shard: Shard, advance: Advance) -> Collect:
        """Begin to run the teacher on a shard.

        The returned function waits for it. It raises NonFiniteError if a logit is not finite, or cannot be stored.
        """
        self._first_batch, together = None, self._batches * self._at_once
        samples, once = np.arange(shard.start, shard.stop), dict[str, NoiseFloor | None]()
        labels, host = self._labels[shard.start : shard.stop], dict[str, torch.Tensor]()
        for first in range(0, len(samples), together):
            part = slice(first, first + together)
            logits = self._run(samples[part], shard.view_index, advance)
            if shard.index == first == 0:
                once["noise_floor"] = self._noise_floor(logits[: self._at_once])
            fields, figures = encode_and_measure(self._encoding, logits, labels[part])
            for name, values in (*fields.items(), ("", figures)):
                if name not in host:
                    host[name] = self._host_buffer((len(samples), *values.shape[1:]), values.dtype)
                host[name][part].copy_(values, non_blocking=True)
        arrived = self._event()

        def collect() -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
            if arrived is not None:
                arrived.synchronize()
            facts = facts_of(shard, host.pop(""), self._classes)
            stored = {name: part.numpy() for name, part in host.items()}
            require_float16(stored)
            return stored, {**facts, **once}

        return collect

    def _logits(self, samples: NDArray[np.int64], view_index: int) -> torch.Tensor:
        return self._run(samples, view_index).clone()

    def _encode(self, logits: torch.Tensor, shard: Shard, start: int) -> dict[str, torch.Tensor]:
        return encode_and_measure(self._encoding, logits, self._labels[: len(logits)])[0]

    def _run(
        self, samples: NDArray[np.int64], view_index: int, advance: Advance = lambda amount: None
    ) -> torch.Tensor:
        """Return logits of one view of each sample, float32 (B, classes), where the next call has its own."""
        self._address(samples, view_index)
        self._next.zero_()
        replay = self._replay = self._replay or self._captured()
        for start in range(0, len(samples), self._at_once):
            replay()
            advance(min(self._at_once, len(samples) - start))
        return self._kept.flatten(0, 1)[: len(samples)]

    def _address(self, samples: NDArray[np.int64], view_index: int) -> None:
        """Copy what the renderer wants to know of the views to the device; what is left over is the last view."""
        filled = np.pad(samples, (0, self._batches * self._at_once - len(samples)), mode="edge")
        rows = self.renderer.rows(filled, self._settings.space.view_ids(filled, view_index))
        shape = self._batches, self._at_once
        own, rows = filled.reshape(shape), rows.reshape(*shape, *rows.shape[1:])
        if self._addresses is None:
            empty = (
                torch.empty_like(torch.from_numpy(each), device=self._next.device) for each in (own, rows)
            )
            self._addresses = next(empty), next(empty)
        for there, here in zip(self._addresses, (own, rows), strict=True):
            pinned = self._host_buffer(here.shape, there.dtype)
            there.copy_(pinned.copy_(torch.from_numpy(here)), non_blocking=True)

    def _captured(self) -> Replay:
        """Return a function that passes the next batch, as a graph if the model can be captured."""
        self._pass()  # a teacher that fails says so here
        try:
            replay = capture(self._pass, self._next.device, warm_ups=_WARM_UPS)
        except (RuntimeError, UsageError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            self._progress.note(f"the teacher runs operation by operation, not as one CUDA graph: {reason}")
            replay = self._pass
        self._next.zero_()
        return replay

    @torch.no_grad()
    def _pass(self) -> None:
        """Keep the logits of the batch that the counter says, and count on."""
        assert self._addresses is not None
        samples, rows = (each.index_select(0, self._next)[0] for each in self._addresses)
        logits, _ = self._forward(lambda: self._shown.render(samples, rows), self._at_once)
        self._kept.index_copy_(0, self._next, logits[None])
        self._next += 1

    def _noise_floor(self, logits: torch.Tensor) -> NoiseFloor | None:
        """Return the noise floor on the views of the first batch."""
        assert self._addresses is not None
        images = self.renderer.render(*(each[0][: len(logits)] for each in self._addresses))
        return noise_floor(self._teacher, images, logits)

    def _host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return host memory that a GPU reads and writes by itself."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._next.is_cuda)

    def _event(self) -> torch.cuda.Event | None:
        """Return what happens on the device when all that was asked of it is done."""
        if not self._next.is_cuda:
            return None
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._next.device))
        return event


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
